// `sobranie token`: signs a token for tests, with the secret that the server checks tokens with. A backend signs those of
// real users itself.

import type { Command } from 'commander';
import { SignJWT } from 'jose';
import { isUser, userShape } from '../protocol/user.ts';
import { actions } from '../rules/config.ts';
import { patternFault } from '../rules/pattern.ts';
import { CommandError, Output, WrongCall } from './output.ts';

interface TokenOptions {
  readonly user: string;
  readonly grant?: readonly string[];
  readonly claims?: string;
  readonly expires: string;
  readonly secret?: string;
  readonly issuer?: string;
  readonly audience?: string;
  readonly json?: true;
}

export function addToken(program: Command): void {
  program
    .command('token')
    .description('sign a token for tests, with JWT_SECRET')
    .requiredOption('-U, --user <user>', 'the claim sub')
    .option('-g, --grant <channel=actions...>', `such as 'chat:*=subscribe,publish'; actions: ${actions.join(', ')}`)
    .option('--claims <json>', 'further claims')
    .option('-e, --expires <time>', 'such as 90s, 15m, 12h or 7d', '1h')
    .option('--secret <secret>', 'the key (JWT_SECRET)')
    .option('--issuer <issuer>', 'the claim iss')
    .option('--audience <audience>', 'the claim aud')
    .option('--json', 'with its claims, for programs')
    .action(token);
}

async function token(options: TokenOptions): Promise<void> {
  const secret = options.secret ?? process.env['JWT_SECRET'];
  if (secret === undefined || secret === '')
    throw new CommandError('JWT_SECRET is not set: name the key with --secret');
  if (!isUser(options.user)) throw new WrongCall(`the user is not ${userShape}`);
  const now = Math.floor(Date.now() / 1_000);
  const claims = {
    ...furtherClaims(options.claims),
    sub: options.user,
    ...(options.grant === undefined ? {} : { channels: Object.fromEntries(options.grant.map(readGrant)) }),
    ...(options.issuer === undefined ? {} : { iss: options.issuer }),
    ...(options.audience === undefined ? {} : { aud: options.audience }),
    iat: now,
    exp: now + readTime(options.expires),
  };
  const signed = await new SignJWT(claims).setProtectedHeader({ alg: 'HS256' }).sign(new TextEncoder().encode(secret));
  new Output(options.json === true).result({ token: signed, claims }, signed);
}

function furtherClaims(text: string | undefined): Record<string, unknown> {
  if (text === undefined) return {};
  try {
    const claims: unknown = JSON.parse(text);
    if (typeof claims === 'object' && claims !== null && !Array.isArray(claims)) return withoutOwn({ ...claims });
  } catch (error) {
    if (error instanceof WrongCall) throw error;
    // Said below.
  }
  throw new WrongCall('--claims is no JSON object');
}

/** The options say these, and would silently take the place of what is written here. */
const ownClaims: Readonly<Record<string, string>> = { sub: '--user', exp: '--expires', channels: '--grant' };

function withoutOwn(claims: Record<string, unknown>): Record<string, unknown> {
  const own = Object.keys(ownClaims).find((name) => Object.hasOwn(claims, name));
  if (own === undefined) return claims;
  throw new WrongCall(`--claims holds "${own}": say ${ownClaims[own]} instead`);
}

function readGrant(text: string): [channel: string, actions: readonly string[]] {
  const at = text.lastIndexOf('=');
  const wanted = text.slice(at + 1).split(',');
  const unknown = wanted.find((action) => !actions.some((known) => known === action));
  if (at < 1) throw new WrongCall(`"${text}" is no grant: write it like 'chat:*=subscribe,publish'`);
  if (unknown !== undefined) throw new WrongCall(`"${unknown}" is no action; there are ${actions.join(', ')}`);
  const channels = text.slice(0, at);
  const fault = channels.includes('{') ? `"${channels}": a grant has no captures` : patternFault(channels);
  if (fault !== undefined) throw new WrongCall(fault);
  return [channels, wanted];
}

/** Ten years. */
const secondsMax = 3_650 * 86_400;
const secondsOf: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3_600, d: 86_400 };

function readTime(text: string): number {
  const [, number, unit = ''] = /^(\d+)([smhd])$/.exec(text) ?? [];
  const seconds = Number(number) * (secondsOf[unit] ?? 1);
  if (seconds > 0 && seconds <= secondsMax) return seconds;
  throw new WrongCall(`"${text}" is no time from 1s to 3650d: write it like 90s, 15m, 12h or 7d`);
}
