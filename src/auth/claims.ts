// Claims: what a token says about its user. They come with a token, are kept for a ticket, or are put together for a
// user whom a backend vouches for; here they become an identity.
// Signatures are not checked here: the caller has checked one, or has kept the claims itself.

import type { Identity } from '../core/access.ts';
import { RealtimeError } from '../protocol/realtime-error.ts';
import { isUser, userShape } from '../protocol/user.ts';
import { readGrants, sharedGrants } from './grants.ts';

export type Claims = Readonly<Record<string, unknown>>;

/** The clocks of two machines may differ by this much. */
export const clockToleranceSeconds = 5;

/** The end of the year 9999. A time in milliseconds, taken for seconds, lies far behind it, and would never end. */
const unixSecondsMax = 253_402_300_799;

/** A page needs a moment to get a fresh token, and cannot use a warning that comes much earlier. */
const warningSecondsMin = 5;
const warningSecondsMax = 30;

/** Throws `unauthorized`, which says what is wrong, or `token_expired`. */
export function identityOf(claims: Claims, nowSeconds: number): Identity {
  const { sub, exp, channels } = claims;
  if (sub === undefined) throw refused('The token names no user: it has no "sub".');
  if (!isUser(sub)) throw refused(`The token’s "sub" is not ${userShape}.`);
  const { grants, channels: held } = sharedGrants(channels);
  const identity = { user: sub, grants, claims: held === channels ? claims : { ...claims, channels: held } };
  if (exp === undefined) return identity;
  if (typeof exp !== 'number' || !Number.isFinite(exp)) throw refused('The token’s "exp" is not a number.');
  if (exp > unixSecondsMax) throw refused('The token’s "exp" is not in seconds: it is after the year 9999.');
  if (exp <= nowSeconds - clockToleranceSeconds) throw new RealtimeError('token_expired');
  // A token that is accepted within the tolerance must not end in the same moment.
  const expiresAt = exp > nowSeconds ? exp : exp + clockToleranceSeconds;
  const warning = Math.min(warningSecondsMax, Math.max(warningSecondsMin, (expiresAt - nowSeconds) / 10));
  return { ...identity, expiresAt, warnAt: expiresAt - warning };
}

function refused(message: string): RealtimeError {
  return new RealtimeError('unauthorized', message);
}

/** What a backend says about a user, as it arrived: unchecked. */
export interface Vouched {
  readonly user?: unknown;
  readonly channels?: unknown;
  readonly claims?: unknown;
  readonly expires?: unknown;
}

/** These come from members of their own, which `claims` could contradict. */
const reservedClaims = ['sub', 'exp', 'channels'];

/** The claims that a token would hold if the backend had a key to sign one. Throws `bad_request`, naming the member. */
export function vouchedClaims({ user, channels, claims = {}, expires }: Vouched, nowSeconds: number): Claims {
  if (!isUser(user)) throw malformed(`"user" is not ${userShape}.`);
  if (!areGrants(channels)) throw malformed('"channels" is not {channel pattern: [actions]}.');
  if (typeof claims !== 'object' || claims === null || Array.isArray(claims)) {
    throw malformed('"claims" is not an object.');
  }
  if (reservedClaims.some((name) => Object.hasOwn(claims, name))) {
    throw malformed(
      '"claims" holds "sub", "exp" or "channels": say "user", "expires" or "channels" beside it instead.',
    );
  }
  if (expires !== undefined && !(typeof expires === 'number' && expires > nowSeconds && expires <= unixSecondsMax)) {
    throw malformed('"expires" is not a time in the future, in Unix seconds.');
  }
  return {
    ...claims,
    sub: user,
    ...(channels === undefined ? {} : { channels }),
    ...(expires === undefined ? {} : { exp: expires }),
  };
}

function areGrants(channels: unknown): boolean {
  try {
    readGrants(channels);
    return true;
  } catch (error) {
    if (error instanceof RealtimeError) return false;
    throw error;
  }
}

function malformed(message: string): RealtimeError {
  return new RealtimeError('bad_request', message);
}
