// The live table against a server that is a function: the race between rows and changes, gaps, keys, the application's
// own writes. Against a real table the torture holds it.

import { describe, expect, spyOn, test } from 'bun:test';
import fc from 'fast-check';
import { liveTable, Sobranie, type Change, type LiveTable, type SobranieError } from '@sobranie/client';
import { seed } from '../support/random.ts';
import { until } from '../support/tcp-client.ts';
import { FakeServer, World, type FakeSocket } from './simulation.ts';

interface Row {
  readonly id: number;
  readonly value: string;
}

type Load = () => Promise<readonly Row[]>;

const change = (action: Change['action'], data: Row | null, old: Partial<Row> | null = null) =>
  ({ action, schema: 'public', table: 't', data, old }) as Change<Row>;
const put = (id: number, value: string): Change<Row> => change('UPDATE', { id, value }, { id });
const drop = (id: number): Change<Row> => change('DELETE', null, { id, value: '' });

async function setUp(load?: Load) {
  const world = new World(seed);
  const server = new FakeServer();
  let offset = 0;
  let asked = 0;
  server.onCommand = (socket, { type, id, channel, snapshot, since }) => {
    if (type === 'unsubscribe') socket.say({ type: 'unsubscribed', id, channel });
    if (type !== 'subscribe') return;
    const recovered = since === undefined ? {} : { recovered: true };
    socket.say({ type: 'subscribed', id, channel, recoverable: true, epoch: 'e', offset, ...recovered });
    if (snapshot === true) asked++;
  };
  const client = new Sobranie<{ t: Change<Row> }>('http://server', { platform: world.platform(server) });
  const table = liveTable(client, 't', { key: 'id', ...(load && { load }) });
  const stop = table.subscribe(() => undefined);
  await world.pass(100);
  const socket = (): FakeSocket => [...server.sockets].at(-1)!;
  return {
    world,
    server,
    client,
    table,
    stop,
    socket,
    asked: () => asked,
    say(data: Change<Row>) {
      socket().say({ type: 'message', channel: 't', offset: ++offset, data, at: 1 });
    },
    gap() {
      offset += 5;
      socket().say({ type: 'gap', channel: 't', epoch: 'e', offset, reason: 'trimmed' });
    },
    snapshot(rows: readonly Row[], at = offset, more = false) {
      socket().say({ type: 'snapshot', channel: 't', rows, epoch: 'e', offset: at, more });
    },
  };
}

const shown = (table: LiveTable<Row>): string => table.rows.map(({ id, value }) => `${id}${value}`).join(' ');

/** Loads that a test answers. */
function loader() {
  const waiting: ((rows: readonly Row[] | Error) => void)[] = [];
  const load: Load = () =>
    new Promise((resolve, reject) => {
      waiting.push((answer) => (answer instanceof Error ? reject(answer) : resolve(answer)));
    });
  return { load, waiting };
}

describe('rows of the application’s own load', () => {
  test('changes that come before the rows are applied after them', async () => {
    const { load, waiting } = loader();
    const { table, say, world } = await setUp(load);
    expect(table.status).toBe('loading');
    say(put(1, 'new'));
    say(drop(2));
    say(put(3, 'x'));
    say(drop(3));
    waiting[0]?.([
      { id: 1, value: 'old' },
      { id: 2, value: 'gone' },
      { id: 4, value: 'kept' },
    ]);
    await world.settle();
    expect([shown(table), table.status]).toEqual(['1new 4kept', 'live']);
    say(change('INSERT', { id: 5, value: 'five' }));
    expect(shown(table)).toBe('1new 4kept 5five');
  });

  test('they are asked for again after a gap, and the old ones stay meanwhile', async () => {
    const { load, waiting } = loader();
    const { table, say, gap, world } = await setUp(load);
    waiting[0]?.([{ id: 1, value: 'a' }]);
    await world.settle();
    gap();
    expect([shown(table), table.status]).toEqual(['1a', 'stale']);
    say(put(2, 'b'));
    await world.settle();
    waiting[1]?.([{ id: 3, value: 'c' }]);
    await world.settle();
    expect([shown(table), table.status]).toEqual(['3c 2b', 'live']);
  });

  test('a load that fails is tried again, and says so meanwhile', async () => {
    const { load, waiting } = loader();
    const { table, world } = await setUp(load);
    waiting[0]?.(new Error('no backend'));
    await world.settle();
    expect([table.status, String(table.state.error)]).toEqual(['loading', 'Error: no backend']);
    await until(() => waiting.length === 2, 'it was asked again');
    waiting[1]?.([]);
    await world.settle();
    expect([table.status, table.state.error]).toEqual(['live', undefined]);
  });

  // Chromium never answers some requests of a page that is frozen or taken offline meanwhile: 8 of 1,800 in a trial. The
  // table waited for such a one for ever, and nobody was told.
  test('a load that never answers is aborted, and made again', async () => {
    const real = setTimeout;
    // A minute is 60 ms here.
    const faster = spyOn(globalThis, 'setTimeout').mockImplementation(((run: () => void, ms = 0) =>
      real(run, ms / 1_000)) as never);
    try {
      const signals: AbortSignal[] = [];
      const { load, waiting } = loader();
      const { table, world } = await setUp((options?: { signal: AbortSignal }) => {
        if (options !== undefined) signals.push(options.signal);
        return load();
      });
      await until(() => waiting.length === 2, 'it was asked again');
      expect([table.status, (table.state.error as SobranieError).code]).toEqual(['loading', 'timeout']);
      expect(signals.map(({ aborted }) => aborted)).toEqual([true, false]);
      waiting[1]?.([]);
      await world.settle();
      expect([table.status, table.state.error]).toEqual(['live', undefined]);
    } finally {
      faster.mockRestore();
    }
  });

  // The time that a load is given doubles with each failure. After sixteen it was longer than a timer can be, so that each
  // further load was late at once: a backend that was away for three minutes was away for ever.
  test('a load that has failed for long has time to answer all the same', async () => {
    const real = setTimeout;
    // Retries come at once; what no timer takes runs at once too, as it does in a runtime.
    const faster = spyOn(globalThis, 'setTimeout').mockImplementation(((run: () => void, ms = 0) =>
      real(run, ms <= 30_000 || ms > 2 ** 31 - 1 ? 1 : ms)) as never);
    try {
      let loads = 0;
      const { table } = await setUp(async () => {
        if (++loads <= 20) throw new Error('no backend');
        await new Promise((resolve) => real(resolve, 50));
        return [{ id: 1, value: 'a' }];
      });
      await until(() => table.status === 'live', 'the rows are here');
      expect([loads, shown(table), table.state.error]).toEqual([21, '1a', undefined]);
    } finally {
      faster.mockRestore();
    }
  });

  test('a load that a gap has overtaken counts no more', async () => {
    const { load, waiting } = loader();
    const { table, gap, world } = await setUp(load);
    gap();
    await world.settle();
    waiting[0]?.([{ id: 1, value: 'too early' }]);
    await world.settle();
    expect(table.status).toBe('loading');
    waiting[1]?.([{ id: 1, value: 'right' }]);
    await world.settle();
    expect(shown(table)).toBe('1right');
  });
});

describe('rows of the server', () => {
  test('come in several frames, at a position: only later changes count', async () => {
    const { table, say, snapshot, asked } = await setUp();
    expect(asked()).toBe(1);
    say(put(1, 'before'));
    say(put(2, 'after'));
    snapshot([{ id: 1, value: 'in the rows' }], 1, true);
    expect(table.status).toBe('loading');
    snapshot([{ id: 2, value: 'old' }], 1);
    expect([shown(table), table.status]).toEqual(['1in the rows 2after', 'live']);
  });

  // A server without a rule for them said nothing, and the table waited for ever.
  test('that never come are asked for again, and the table says so', async () => {
    const own = globalThis.setTimeout;
    globalThis.setTimeout = ((run: () => void, ms: number) => own(run, ms === 20_000 ? 1 : ms)) as typeof setTimeout;
    try {
      const { table, asked, snapshot, world } = await setUp();
      await until(() => table.state.error !== undefined, 'the table has an error');
      expect(table.state.error).toMatchObject({ code: 'timeout' });
      await world.pass(10);
      expect([asked() > 1, table.status]).toEqual([true, 'loading']);
      snapshot([{ id: 1, value: 'a' }]);
      expect([shown(table), table.status, table.state.error]).toEqual(['1a', 'live', undefined]);
    } finally {
      globalThis.setTimeout = own;
    }
  });

  test('are asked for again after a gap', async () => {
    const { table, gap, snapshot, asked, world } = await setUp();
    snapshot([{ id: 1, value: 'a' }]);
    gap();
    await world.pass(10);
    expect([asked(), table.status]).toEqual([2, 'stale']);
    snapshot([{ id: 2, value: 'b' }]);
    expect([shown(table), table.status]).toEqual(['2b', 'live']);
  });

  test('are not asked for where recovery brings what was missed', async () => {
    const { table, snapshot, asked, world, server, say } = await setUp();
    snapshot([{ id: 1, value: 'a' }]);
    [...server.sockets][0]?.end(1006, '');
    await world.settle();
    expect(table.status).toBe('stale');
    await world.pass(10_000);
    say(put(2, 'b'));
    expect([asked(), shown(table), table.status]).toEqual([1, '1a 2b', 'live']);
  });
});

describe('a channel that is refused', () => {
  const refusal = { type: 'error', channel: 't', code: 'forbidden', message: 'No rule allows this.', retryable: false };

  // The second of two tables of a page was "idle" for ever, since it began to listen when all was over.
  test('is told to each table, also to one that begins to listen after it', async () => {
    const { world, server, client, table } = await setUp();
    [...server.sockets][0]?.say({ type: 'unsubscribed', channel: 't', reason: 'removed' });
    const later = liveTable(client, 't', { key: 'id', load: async () => [] });
    const stop = later.subscribe(() => undefined);
    await world.pass(100);
    for (const each of [table, later]) {
      expect([each.status, (each.state.error as SobranieError).code]).toEqual(['failed', 'removed']);
    }
    stop();
  });

  // After a login the table was live, and its error was still that of the stranger.
  test('is forgotten once it is live again', async () => {
    const { world, server, client, table, snapshot } = await setUp();
    snapshot([{ id: 1, value: 'a' }]);
    [...server.sockets][0]?.say({ ...refusal, id: 's' });
    expect([table.status, (table.state.error as SobranieError).code]).toEqual(['failed', 'forbidden']);
    client.reconnect();
    await world.pass(10_000);
    expect([shown(table), table.status, table.state.error]).toEqual(['1a', 'live', undefined]);
  });
});

test('a row that changes its key, a truncate, a row that moves away', async () => {
  const { table, say, snapshot } = await setUp();
  snapshot([
    { id: 1, value: 'a' },
    { id: 2, value: 'b' },
  ]);
  say(change('UPDATE', { id: 9, value: 'a' }, { id: 1 }));
  expect(shown(table)).toBe('2b 9a');
  say({ ...drop(2), moved: true });
  expect(shown(table)).toBe('9a');
  say(change('TRUNCATE', null));
  expect(shown(table)).toBe('');
  say({ ...change('INSERT', { id: 3, value: 'c' }), moved: true });
  expect(shown(table)).toBe('3c');
});

test('a change that does not say which row is a reason to load again', async () => {
  const { table, say, snapshot, asked, world } = await setUp();
  snapshot([{ id: 1, value: 'a' }]);
  say(change('DELETE', null, null));
  await world.pass(10);
  expect([asked(), table.status]).toEqual([2, 'stale']);
});

describe('writes of the application', () => {
  test('are shown at once, and give way to the server’s word', async () => {
    const { table, say, snapshot } = await setUp();
    snapshot([{ id: 1, value: 'a' }]);
    const sent = Promise.withResolvers<void>();
    // A checkbox that was bound to a row showed its old state for a frame after each click, since the table told its
    // listeners of an own write only with its next round.
    const told: string[] = [];
    const deaf = table.subscribe(({ rows }) => told.push(...rows.map(({ value }) => value)));
    const done = table.put({ id: 1, value: 'mine' }, () => sent.promise);
    expect(told).toEqual(['mine']);
    deaf();
    expect(shown(table)).toBe('1mine');
    // Somebody else's earlier write does not flicker through.
    say(put(1, 'theirs'));
    expect(shown(table)).toBe('1mine');
    sent.resolve();
    await done;
    expect(shown(table)).toBe('1mine');
    say(put(1, 'mine, as stored'));
    expect(shown(table)).toBe('1mine, as stored');
  });

  test('are taken back when they fail', async () => {
    const { table, snapshot } = await setUp();
    snapshot([{ id: 1, value: 'a' }]);
    const put1 = table.put({ id: 1, value: 'mine' }, () => Promise.reject(new Error('no')));
    const remove = table.remove({ id: 1, value: 'a' }, () => Promise.reject(new Error('no')));
    expect(shown(table)).toBe('');
    const outcomes = await Promise.allSettled([put1, remove]);
    expect(outcomes.map(({ status }) => status)).toEqual(['rejected', 'rejected']);
    expect(shown(table)).toBe('1a');
  });

  test('that the server has published before they were answered need no further word', async () => {
    const { table, say, snapshot } = await setUp();
    snapshot([]);
    const sent = Promise.withResolvers<void>();
    const done = table.put({ id: 1, value: 'mine' }, () => sent.promise);
    say(change('INSERT', { id: 1, value: 'mine' }));
    sent.resolve();
    await done;
    say(put(1, 'later'));
    expect(shown(table)).toBe('1later');
  });

  test('may get their key from the backend', async () => {
    const { table, say, snapshot } = await setUp();
    snapshot([]);
    await table.put({ id: -1, value: 'new' }, async () => ({ id: 7, value: 'new' }));
    expect(shown(table)).toBe('7new');
    say(change('INSERT', { id: 7, value: 'new' }));
    expect(shown(table)).toBe('7new');
  });
});

test('state is one object until something changes', async () => {
  const { table, say, snapshot } = await setUp();
  snapshot([{ id: 1, value: 'a' }]);
  const before = table.state;
  expect(table.state).toBe(before);
  say(put(1, 'b'));
  expect(table.state).not.toBe(before);
  expect(table.state).toBe(table.state);
});

test('whoever stops listening lets the channel go, and begins anew later', async () => {
  const { table, stop, world, server, snapshot, asked } = await setUp();
  snapshot([{ id: 1, value: 'a' }]);
  stop();
  await world.pass(10_000);
  expect([table.status, server.sockets.size]).toEqual(['idle', 0]);
  table.subscribe(() => undefined);
  await world.pass(100);
  expect([table.status, asked()]).toEqual(['loading', 2]);
});

test(`rows and changes meet, whenever the rows are read, seed ${seed}`, async () => {
  const step = fc.oneof(
    fc.record({ kind: fc.constant('put' as const), id: fc.nat(5), value: fc.string({ maxLength: 2 }) }),
    fc.record({ kind: fc.constant('drop' as const), id: fc.nat(5) }),
    fc.record({ kind: fc.constant('truncate' as const) }),
  );
  const read = fc.record({ at: fc.nat(30), lag: fc.nat(10) });
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 30 }), read, fc.boolean(), async (steps, { at, lag }, isOwn) => {
      const { load, waiting } = loader();
      const { table, say, snapshot, world } = await setUp(isOwn ? load : undefined);
      const truth = new Map<number, string>();
      const rowsAt: Row[][] = [[]];
      for (const each of steps) {
        if (each.kind === 'put') truth.set(each.id, each.value);
        else if (each.kind === 'drop') truth.delete(each.id);
        else truth.clear();
        rowsAt.push(Array.from(truth, ([id, value]) => ({ id, value })));
      }
      // The rows are those after `at` steps, and arrive when some more have been published.
      const readAt = Math.min(at, steps.length);
      const arriveAt = Math.min(readAt + lag, steps.length);
      for (let index = 0; index <= steps.length; index++) {
        if (index === arriveAt) {
          if (isOwn) waiting[0]?.(rowsAt[readAt] ?? []);
          else snapshot(rowsAt[readAt] ?? [], readAt);
          await world.settle();
        }
        const each = steps[index];
        if (each?.kind === 'put') say(put(each.id, each.value));
        else if (each?.kind === 'drop') say(drop(each.id));
        else if (each !== undefined) say(change('TRUNCATE', null));
      }
      const rows = new Map(table.rows.map(({ id, value }) => [id, value]));
      expect([...rows].toSorted(([one], [other]) => one - other)).toEqual(
        [...truth].toSorted(([one], [other]) => one - other),
      );
    }),
    { seed, numRuns: 300 },
  );
});
