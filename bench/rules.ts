// What rules and authorization cost the fan-out. Same token, same bytes, same server but for its rules: under the shipped
// rules with a grant in the token; under twenty rules with captures, of which the last lets the owner in; and where a
// function of the application is asked, whose answer is remembered. With 1,000 subscribers, and with one, where a
// publication costs least and asking counts most.
//
// On a busy machine a race swings by more than rules cost. What `may` takes by itself is therefore timed in this process
// as well, and held against the server's CPU time of a publication to a single subscriber.
import { join } from 'node:path';
import { SignJWT } from 'jose';
import config from '../realtime.config.ts';
import { Decisions } from '../src/auth/decisions.ts';
import { readGrants } from '../src/auth/grants.ts';
import { RuleAccess } from '../src/auth/rule-access.ts';
import type { Identity } from '../src/core/access.ts';
import { systemClock } from '../src/time/clock.ts';
import type { RealtimeConfig } from '../src/rules/config.ts';
import { Rules } from '../src/rules/rules.ts';
import { oursEphemeral, startOurs, type Contender } from './contenders.ts';
import { runLoad } from './load-client.ts';
import type { BenchOptions } from './options.ts';
import { runRace } from './race.ts';
import twentyRules from './rules-config.ts';
import { BenchError, repositoryRoot } from './server-process.ts';
import { median, printTable } from './table.ts';

const secret = 'a secret of this bench that is long enough';
const claims = { sub: 'ann', tenant: 'acme', channels: { 'ephemeral:*': ['subscribe', 'publish'] } };
/** Equally long. */
const cases = [
  { name: 'shipped rules, a grant', channel: 'ephemeral:ann0', config },
  { name: '20 rules, owner', channel: 'bench:acme:ann', config: twentyRules },
  { name: '20 rules, a function', channel: 'asked:acme:ann', config: twentyRules },
] as const satisfies readonly { readonly name: string; readonly channel: string; readonly config: RealtimeConfig }[];
const askedTimes = 500_000;
/** Of what a publication to one subscriber costs. */
const shareMax = 0.05;

export async function rules(options: BenchOptions): Promise<void> {
  if (options.baselinesOnly) return;
  const contenders = await contendersOf();
  const [reference] = contenders;
  if (reference === undefined) return;
  for (const connections of [1_000, 1]) {
    await runRace({
      title: `${connections.toLocaleString('en')} WebSocket subscriber${connections === 1 ? '' : 's'}, by rules`,
      contenders,
      reference,
      windows: [1, 32],
      connections,
      rounds: options.quick ? 3 : 9,
      seconds: options.quick ? 0.7 : 1.5,
    });
  }
  await timeAlone(reference, options.quick ? 3 : 9);
}

/** `root` is the checkout whose server, rules and all, is measured. */
export async function contendersOf(root: string = repositoryRoot): Promise<Contender[]> {
  const token = await new SignJWT(claims)
    .setProtectedHeader({ alg: 'HS256' })
    .setExpirationTime('2h')
    .sign(new TextEncoder().encode(secret));
  const path = `/realtime/ws?token=${token}`;
  return cases.map(({ name, channel, config: given }) => {
    const file = given === config ? 'realtime.config.ts' : 'bench/rules-config.ts';
    const env = {
      SYNC: 'memory',
      ROLE: 'ws,sse,api',
      JWT_SECRET: secret,
      CONFIG_FILE: join(root, file),
      MAX_CONNECTIONS_PER_USER: '40000',
    };
    const server = { name: `sobranie with ${file}`, start: () => startOurs(env, { root }) };
    return { ...oursEphemeral, name, channel, path, publishPath: path, server };
  });
}

async function timeAlone(reference: Contender, rounds: number): Promise<void> {
  const server = await reference.server.start();
  const micros: number[] = [];
  try {
    for (let round = 0; round < rounds; round++) {
      const { serverCpuSeconds, published } = await runLoad(reference, server, {
        connections: 1,
        window: 32,
        seconds: 0.7,
      });
      micros.push((serverCpuSeconds * 1e6) / published);
    }
  } finally {
    await server.stop();
  }
  const publication = median(micros);
  const rows = cases.map((each) => ({
    name: each.name,
    micros: median(Array.from({ length: rounds }, () => mayMicros(each))),
  }));
  printTable(
    `asking alone, beside a publication to one subscriber (${publication.toFixed(2)} µs of the server, asking included)`,
    ['', 'µs', 'share'],
    rows.map(({ name, micros: asking }) => [name, asking.toFixed(3), `${((asking / publication) * 100).toFixed(1)} %`]),
  );
  const dear = rows.filter(({ micros: asking }) => asking > publication * shareMax);
  if (dear.length > 0)
    throw new BenchError(`asking costs more than ${shareMax * 100} %: ${dear.map(({ name }) => name).join(', ')}`);
}

function mayMicros({ channel, config: given }: (typeof cases)[number]): number {
  const compiled = new Rules(given);
  const decisions = new Decisions(
    { clock: systemClock, decided: () => undefined, failed: () => undefined },
    () => compiled.authorize,
    { total: 500, each: 50 },
  );
  const access = new RuleAccess(compiled, {
    isOpen: false,
    database: undefined,
    decisions,
    readRules: () => Promise.resolve(compiled),
  });
  const identity: Identity = { user: claims.sub, claims, grants: readGrants(claims.channels) };
  const startedAt = performance.now();
  let allowed = 0;
  for (let time = 0; time < askedTimes; time++) if (access.may(identity, 'publish', channel) === true) allowed++;
  if (allowed !== askedTimes) throw new BenchError(`${channel}: ${askedTimes - allowed} of ${askedTimes} were refused`);
  return ((performance.now() - startedAt) * 1_000) / askedTimes;
}
