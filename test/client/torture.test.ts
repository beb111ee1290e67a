// The client under everything that networks, servers and machines do, for a minute, or for 20 minutes with LONG=1: each
// message of each channel comes once and in order or a gap is told, and a live table is the table at the end.
//
// In the short form: Bun over memory, Node over PostgreSQL, Chromium over Redis. In the long form each over each.

import { expect, test } from 'bun:test';
import { seed } from '../support/random.ts';
import { within } from '../../src/time/within.ts';
import { Tormentor, type Engine } from './tormentor.ts';
import { runtimes, suffering, type Runtime } from './victims.ts';

const isLong = process.env['LONG'] === '1';
const tormentMs = Number(process.env['TORMENT_MS'] ?? (isLong ? 20 * 60_000 : 60_000));
/** Its last part is for a failure, which is to be told and to leave nothing behind. */
const limitMs = tormentMs + 420_000;
const endMs = 60_000;

const short: readonly (readonly [Runtime, Engine])[] = [
  ['Bun', 'memory'],
  ['Node', 'postgres'],
  ['Chromium', 'redis'],
];
const all = runtimes.flatMap((runtime) =>
  (['memory', 'postgres', 'redis'] as const).map((engine) => [runtime, engine] as const),
);
const pairs = isLong ? all : short;

test(
  `nothing is lost or doubled in silence, seed ${seed}`,
  async () => {
    const tormentors = await startTormentors();
    const ending = new AbortController();
    const isBroken = Promise.withResolvers<never>();
    // A browser takes a while to start: the torment begins when the victim is there.
    const arrived = new Map(Array.from(tormentors.keys(), (engine) => [engine, Promise.withResolvers<void>()]));
    const desk = Bun.serve({
      hostname: '127.0.0.1',
      port: 0,
      idleTimeout: 0,
      async fetch(request) {
        const order = (await request.json()) as { call: string; engine: Engine };
        arrived.get(order.engine)?.resolve();
        const answer = await tormentors.get(order.engine)?.answer(order).catch(isBroken.reject);
        return Response.json(answer, { headers: { 'access-control-allow-origin': '*' } });
      },
      // A page that was frozen while it asked: it asks again.
      error: () => new Response(null, { status: 400 }),
    });
    const waitsFor = new Set<string>();
    const awaited = async <Value>(what: string, promise: Promise<Value>): Promise<Value> => {
      waitsFor.add(what);
      const value = await promise;
      waitsFor.delete(what);
      return value;
    };
    const victims = pairs.map(async ([runtime, engine], index) => {
      const torture = { desk: desk.url.href, engine, seed: seed + index, tormentMs, signal: ending.signal };
      const reports = await awaited(`the victims in ${runtime} over ${engine}`, suffering(runtime, torture));
      return reports.map((report, place) => ({
        name: `${runtime} ${engine} ${place === 0 ? 'websocket' : 'sse'}`,
        report,
      }));
    });
    const torment = Array.from(tormentors, async ([engine, tormentor]) => {
      await arrived.get(engine)?.promise;
      await awaited(`the torment over ${engine}`, tormentor.torment(tormentMs));
    });
    let closed: readonly PromiseSettledResult<void>[];
    try {
      const isOver = Promise.race([Promise.all([Promise.all(victims), ...torment]), isBroken.promise]);
      const [ended] = await within(isOver, limitMs - endMs, 'the torture').catch((cause: unknown) => {
        const states = Array.from(tormentors.values(), ({ state }) => state);
        throw new Error([reasonOf(cause), `it waited for ${[...waitsFor].join(', ')}`, ...states].join('\n'), {
          cause,
        });
      });
      const harms = Array.from(tormentors.values(), ({ engine, done }) => `${engine}: ${done.join(' ')}`).join('\n');
      for (const { name, report } of ended.flat()) {
        const { faults, trace } = report;
        expect({ name, faults, trace, harms }).toEqual({ name, faults: [], trace: [], harms });
      }
      // They did see something, and lost it. Each by itself may have been held, or had no server, for most of the time.
      const sumOf = (what: 'messages' | 'connections'): number =>
        ended.flat().reduce((sum, { report }) => sum + report[what], 0);
      expect(sumOf('messages')).toBeGreaterThan(20);
      expect(sumOf('connections')).toBeGreaterThan(ended.flat().length);
      if (process.env['VERBOSE'] === '1') process.stderr.write(`${harms}\n${JSON.stringify(ended.flat(), null, 1)}\n`);
    } finally {
      // In this order: who asks ends before who answers, and both before what the answers are taken from.
      ending.abort(new Error('the torture is over'));
      await Promise.allSettled(victims);
      await desk.stop(true);
      closed = await Promise.allSettled(Array.from(tormentors.values(), (tormentor) => tormentor.close()));
    }
    // Not in the midst of a failure, which it would hide.
    expect(closed.filter(({ status }) => status === 'rejected')).toEqual([]);
  },
  limitMs,
);

async function startTormentors(): Promise<ReadonlyMap<Engine, Tormentor>> {
  const engines = [...new Set(pairs.map(([, engine]) => engine))];
  const started = await Promise.allSettled(engines.map((engine, index) => Tormentor.start(engine, seed + index)));
  const tormentors = started.flatMap((each) => (each.status === 'fulfilled' ? [each.value] : []));
  const failure = started.find((each) => each.status === 'rejected');
  if (failure !== undefined) {
    await Promise.all(tormentors.map((tormentor) => tormentor.close()));
    throw failure.reason;
  }
  return new Map(tormentors.map((tormentor) => [tormentor.engine, tormentor]));
}

/** What a process printed before it failed may be long, and the cause stands at its end. */
function reasonOf(cause: unknown): string {
  const text = cause instanceof Error ? cause.message : String(cause);
  return text.length <= 1_200 ? text : `${text.slice(0, 200)} … ${text.slice(-1_000)}`;
}
