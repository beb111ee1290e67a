// Rows first, then what comes after them: what a subscription with `snapshot` is sent, over both transports and over
// each sync layer; what is shared; and what a bad query does, which is nothing to anybody else.

import { describe, expect, test } from 'bun:test';
import postgres from 'postgres';
import { Refused, type Frame, type WebSocketClient } from '../support/clients.ts';
import { createDatabase } from '../support/postgres.ts';
import type { RunningServer } from '../support/process.ts';
import { RowsBelief } from '../support/rows-belief.ts';
import { TestRules } from '../support/rules-file.ts';
import { until } from '../support/tcp-client.ts';
import { secret, tokenOf } from '../support/tokens.ts';
import { call, describeWire, publish, samples } from '../wire/wire.ts';

const drizzle = ['drizzle-orm', 'drizzle-orm/pg-core'].map((name) =>
  JSON.stringify(Bun.resolveSync(name, import.meta.dir)),
);

const rules = new TestRules('');
rules.writeText(`
  import { eq } from ${drizzle[0]};
  import { integer, pgTable, QueryBuilder, text } from ${drizzle[1]};
  export default { rules: [
  { channels: 'tasks:{room}', allow: { subscribe: 'everyone', publish: 'everyone', history: 'everyone' },
    snapshot: ({ captures, sql }) => sql\`select * from tasks where room = \${captures.room} order by id\` },
  { channels: 'built:{room}', allow: { subscribe: 'everyone' }, snapshot: ({ captures }) => {
    const tasks = pgTable('tasks', { id: integer(), room: text() });
    return new QueryBuilder().select({ id: tasks.id }).from(tasks).where(eq(tasks.room, captures.room));
  } },
  { channels: 'later:{room}', allow: { subscribe: 'everyone' }, snapshot: async ({ captures, sql }) => {
    const open = await sql\`true\`;
    return sql\`select id from tasks where room = \${captures.room} and \${open}\`;
  } },
  { channels: 'old:{room}', allow: { history: 'everyone' }, older: ({ captures, before, limit, sql }) => sql\`
    select id from tasks where room = \${captures.room} and id < \${before} order by id desc limit \${limit}\` },
  { channels: 'whole:{room}', recoverable: false, allow: { history: 'everyone' }, older: ({ captures, before, sql }) => sql\`
    select id from tasks where room = \${captures.room} and id < \${before} order by id desc\` },
  { channels: 'mine', allow: { subscribe: 'everyone' },
    snapshot: ({ user, sql }) => sql\`select \${user}::text as user, count(*) as n from tasks\` },
  { channels: 'slow:{n}', allow: { subscribe: 'everyone' },
    snapshot: ({ captures, sql }) => sql\`select \${captures.n}::int as n, pg_sleep(0.25)::text as slept\` },
  { channels: 'held:{lock}:{n}', allow: { subscribe: 'everyone' }, snapshot: ({ captures, sql }) => sql\`
    select \${captures.n}::int as n, pg_advisory_xact_lock_shared(\${captures.lock}::bigint)::text as held\` },
  { channels: 'patient', allow: { subscribe: 'everyone' }, snapshot: ({ sql }) => sql\`select pg_sleep(8)::text as slept\` },
  { channels: 'counted', allow: { subscribe: 'everyone' },
    snapshot: ({ sql }) => sql\`select \${'x'}::text as x, clock_timestamp() as c, repeat('y', 300) from generate_series(1, 100)\` },
  { channels: 'bad:{kind}', allow: { subscribe: 'everyone', publish: 'everyone' }, snapshot: ({ captures, sql }) => {
    if (captures.kind === 'throws') throw new Error('the application is broken');
    if (captures.kind === 'none') return undefined;
    if (captures.kind === 'later') return new Promise(() => undefined);
    return { fails: sql\`select 1 / 0 as x\`, hangs: sql\`select pg_sleep(60)\`,
      writes: sql\`select spoil() as x\`, large: sql\`select generate_series(1, 1000000) as x\`,
      wide: sql\`select repeat('x', 1000000) as x from generate_series(1, 50)\`, two: sql\`select 1 as x; select 2 as x\`,
      wrong: sql\`selec\` }[captures.kind];
  } },
  { channels: '*', allow: { subscribe: 'everyone', publish: 'everyone' } }] };`);

/** What goes wrong does so before the sync layer matters. */
const badKinds: Readonly<Record<string, readonly string[]>> = {
  memory: ['fails', 'hangs', 'writes', 'large', 'wide', 'two', 'wrong', 'throws', 'none', 'later'],
};

describeWire('snapshots', (wire) => {
  let sql: postgres.Sql;
  const started = (async () => {
    const database = await createDatabase({ migrated: true });
    sql = postgres(database.url, { max: 3, onnotice: () => undefined });
    await sql.unsafe(`
      create table tasks (id int primary key, room text not null, done boolean, at timestamptz, price numeric);
      select realtime.watch('tasks', array['tasks:{room}'], numbers => 'text');
      create table counts (n int);
      create function spoil() returns int language sql as 'insert into counts values (1) returning n'`);
    return wire.start({
      DATABASE_URL: database.url,
      CONFIG_FILE: rules.path,
      JWT_SECRET: secret,
      ALLOW_ANONYMOUS: 'true',
      SNAPSHOT_TIMEOUT: '1',
      RATE_LIMIT_PER_MINUTE: '0',
    });
  })();
  const room = (): string => wire.channel('tasks').slice('tasks:'.length);

  async function subscribed(server: RunningServer, channel: string, more = {}): Promise<[WebSocketClient, Frame]> {
    const socket = await wire.socket(server);
    return [socket, await socket.request({ type: 'subscribe', channel, snapshot: true, ...more })];
  }

  test('rows come first and look as their changes do; messages go on right after them', async () => {
    const server = await started;
    const name = room();
    const id = Math.floor(Math.random() * 1e9);
    await sql`insert into tasks values (${id}, ${name}, false, '2026-01-02 03:04:05+02', 1.50)`;
    const [socket, reply] = await subscribed(server, `tasks:${name}`);
    const rows = await socket.next('snapshot');
    const shown = { id, room: name, done: false, at: '2026-01-02T01:04:05+00:00', price: '1.50' };
    const { epoch, offset } = reply;
    expect(rows).toEqual({
      type: 'snapshot',
      channel: `tasks:${name}`,
      rows: [shown],
      epoch,
      offset,
      more: false,
    } as Frame);
    await sql`update tasks set done = true where id = ${id}`;
    const update = await socket.next('message');
    expect(update).toMatchObject({ offset: offset! + 1, data: { action: 'UPDATE', data: { ...shown, done: true } } });
    // What clients publish goes on from there too.
    expect((await publish(server, `tasks:${name}`, 'hello')).offset).toBe(offset! + 2);
    expect(await socket.next('message')).toMatchObject({ offset: offset! + 2, data: 'hello' });
  });

  test('a query builder’s query does as well, and one that takes a while to make', async () => {
    const server = await started;
    const name = room();
    const id = Math.floor(Math.random() * 1e9);
    await sql`insert into tasks (id, room) values (${id}, ${name})`;
    for (const kind of ['built', 'later']) {
      const [socket] = await subscribed(server, `${kind}:${name}`);
      expect((await socket.next('snapshot')).rows).toEqual([{ id }]);
    }
  });

  test('who comes back by position gets what was missed, and no rows; a void position gets rows, and no gap', async () => {
    const server = await started;
    const name = room();
    const [first, { epoch, offset }] = await subscribed(server, `tasks:${name}`);
    await first.next('snapshot');
    await publish(server, `tasks:${name}`, 1);
    await first.next('message');
    const [back, reply] = await subscribed(server, `tasks:${name}`, { since: { epoch, offset } });
    expect(reply).toMatchObject({ recovered: true });
    expect((await back.settle()).map(({ type, data }) => [type, data])).toEqual([
      ['welcome', undefined],
      ['message', 1],
    ]);
    const [other, answer] = await subscribed(server, `tasks:${name}`, { since: { epoch: 'another', offset: 7 } });
    expect(answer).toMatchObject({ recovered: false });
    // Rows that were read for others a moment ago, and what came after them.
    expect((await other.next('snapshot')).offset).toBe(answer.offset);
    expect((await other.settle()).map(({ type }) => type)).not.toContain('gap');
  });

  test('a live subscription gets its rows again when it asks, and misses nothing meanwhile', async () => {
    const server = await started;
    const name = room();
    const base = Math.floor(Math.random() * 1e8) * 10;
    const [socket] = await subscribed(server, `tasks:${name}`);
    await socket.next('snapshot');
    let isOver = false;
    const writing = (async () => {
      for (let n = 0; !isOver; n++) await sql`insert into tasks (id, room) values (${base + n}, ${name})`;
    })();
    let newest = 0;
    for (let time = 0; time < 3; time++) {
      const belief = new RowsBelief();
      socket.send({ type: 'subscribe', channel: `tasks:${name}`, snapshot: true });
      // How many changes come before the rows depends on how long these take.
      for (let after = 0; after < 60; after += belief.isWhole ? 1 : 0) {
        const frame = await socket.nextAny();
        if (frame.type === 'snapshot' && frame.more === false) expect(frame.offset).toBeGreaterThanOrEqual(newest);
        if (frame.type === 'message') newest = frame.offset!;
        if (belief.isWhole || frame.type === 'snapshot') belief.take(frame);
      }
      expect(belief.isWhole).toBe(true);
      expect(belief.faults).toEqual([]);
    }
    isOver = true;
    await writing;
  });

  test('an event stream says where it stands with its last rows, so that one that is cut before asks again', async () => {
    const server = await started;
    const name = room();
    const id = Math.floor(Math.random() * 1e9);
    await sql`insert into tasks (id, room) values (${id}, ${name})`;
    const query = `channels=tasks:${name},plain:${name}&snapshot=1`;
    const stream = await wire.stream(server, { query });
    const welcome = await stream.next('welcome');
    const rows = await stream.next('snapshot');
    expect(rows.frame.rows).toMatchObject([{ id }]);
    expect(rows.lastEventId).not.toBe(welcome.lastEventId);
    await publish(server, `tasks:${name}`, 'later');
    // Cut after the welcome: the rows were not read.
    const again = await wire.stream(server, { query, lastEventId: welcome.lastEventId });
    expect((await again.next('snapshot')).frame.rows).toMatchObject([{ id }]);
    // Cut after the rows: what followed comes, and nothing else.
    const resumed = await wire.stream(server, { query, lastEventId: rows.lastEventId });
    expect((await resumed.next('message')).frame.data).toBe('later');
    expect(resumed.drain().map(({ type }) => type)).toEqual(['welcome']);
  });

  test('rows that depend on the user are those of each user; others are shared', async () => {
    const server = await started;
    const ask = async (user: string): Promise<unknown> => {
      const socket = await wire.socket(server, { query: `token=${await tokenOf({ sub: user })}` });
      await socket.request({ type: 'subscribe', channel: 'mine', snapshot: true });
      return (await socket.next('snapshot')).rows;
    };
    const [ann, bob] = await Promise.all([ask('ann'), ask('bob')]);
    expect(ann).toMatchObject([{ user: 'ann' }]);
    expect(bob).toMatchObject([{ user: 'bob' }]);
  });

  test('of one user two queries run at once, and others do not wait for the rest of them', async () => {
    const server = await started;
    const open = async (user: string) => wire.socket(server, { query: `token=${await tokenOf({ sub: user })}` });
    const [greedy, modest] = await Promise.all([open('greedy'), open('modest')]);
    const count = 6;
    const channels = Array.from({ length: count }, (_, n) => ({ channel: `slow:${n}`, snapshot: true }));
    greedy.send({ type: 'subscribe', channels });
    let taken = 0;
    const all = (async () => {
      for (; taken < count; taken++) await greedy.next('snapshot', 30_000);
    })();
    await modest.request({ type: 'subscribe', channel: `slow:${count}`, snapshot: true });
    expect(taken).toBeLessThan(count - 1);
    await all;
    expect(taken).toBe(count);
  });

  test.each(badKinds[wire.environment.name] ?? ['fails'])(
    'a query that %s is unavailable, for that subscription alone',
    async (kind) => {
      const server = await started;
      const [socket, reply] = await subscribed(server, `bad:${kind}`);
      expect(reply).toMatchObject({ type: 'error', code: 'unavailable', retryable: true, channel: `bad:${kind}` });
      expect(reply.message).not.toMatch(/broken|zero|selec|read-only/);
      expect(await socket.request({ type: 'subscribe', channel: 'plain' })).toMatchObject({ type: 'subscribed' });
      expect(await socket.request({ type: 'subscribe', channel: `bad:${kind}` })).toMatchObject({ type: 'subscribed' });
      const [stream, refusal] = await Promise.all([
        wire.stream(server, { query: `channels=bad:${kind},plain&snapshot=1` }),
        wire.stream(server, { query: `channels=bad:${kind}&snapshot=1` }).catch((error: unknown) => error),
      ]);
      expect(refusal).toBeInstanceOf(Refused);
      expect((refusal as Refused).status).toBe(503);
      expect((await stream.next('welcome')).frame.channels).toMatchObject([{ channel: 'plain' }]);
      expect((await stream.next('error')).frame).toMatchObject({ channel: `bad:${kind}`, code: 'unavailable' });
      await publish(server, 'plain', kind);
      expect((await stream.next('message')).frame.data).toBe(kind);
      expect(await sql`select * from counts`).toHaveLength(0);
    },
  );

  test('history with a row’s key goes back past what is kept, page by page', async () => {
    const server = await started;
    const name = room();
    const first = Math.floor(Math.random() * 1e8) * 10;
    const ids = Array.from({ length: 7 }, (_, index) => first + index);
    for (const id of ids) await sql`insert into tasks (id, room) values (${id}, ${name})`;
    const socket = await wire.socket(server);
    for (const kind of ['old', 'whole']) {
      const channel = `${kind}:${name}`;
      const page = (before: unknown, limit = 3) => socket.request({ type: 'history', channel, before, limit });
      const seen: number[] = [];
      for (let before = first + 7; ;) {
        const { rows, messages, complete } = await page(before);
        expect(messages).toEqual([]);
        for (const { id } of rows as { id: number }[]) seen.push((before = id));
        if (complete === true) break;
      }
      expect(seen).toEqual(ids.toReversed());
      // A key may come as a text, such as one that a number would round.
      expect((await page(String(first + 1))).rows).toEqual([{ id: first }]);
      expect(await page('no number')).toMatchObject({ type: 'error', code: 'bad_request' });
      for (const bad of ['', 'x'.repeat(257), { id: 1 }, true, 'a\u0000b']) {
        expect(await page(bad)).toMatchObject({ type: 'error', code: 'bad_request' });
      }
      expect(
        await socket.request({ type: 'history', channel, before: 1, since: { epoch: 'e', offset: 1 } }),
      ).toMatchObject({
        code: 'bad_request',
      });
    }
    const answer = await call(server, `/realtime/channels/old:${name}/history?before=${first + 2}&limit=1`);
    expect(answer.body).toMatchObject({ type: 'history', messages: [], rows: [{ id: first + 1 }], complete: false });
    expect(await socket.request({ type: 'history', channel: `tasks:${name}`, before: 1 })).toMatchObject({
      code: 'bad_request',
    });
  });

  // A stream that waited for its rows longer than a request may be silent was cut without an answer. What opens it is
  // the same over all layers, and waits.
  const testOnce = wire.environment.name === 'memory' ? test : () => undefined;
  testOnce('a stream waits for its rows longer than a request may be silent', async () => {
    const server = await wire.start({
      DATABASE_URL: (await createDatabase({ migrated: true })).url,
      CONFIG_FILE: rules.path,
      SNAPSHOT_TIMEOUT: '60',
      REQUEST_TIMEOUT: '2',
    });
    const stream = await wire.stream(server, { query: 'channels=patient&snapshot=1', timeoutMs: 30_000 });
    expect((await stream.next('snapshot')).frame.rows).toEqual([{ slept: '' }]);
  });

  // Whoever has its rows looks for changes that wait for the relay. Four queries held all connections, and the look had to
  // wait for one of them.
  testOnce('whoever has its rows is sent them, however long the queries of others take', async () => {
    const database = await createDatabase({ migrated: true });
    const server = await wire.start({ DATABASE_URL: database.url, CONFIG_FILE: rules.path, SNAPSHOT_TIMEOUT: '30' });
    const holder = postgres(database.url, { max: 1, onnotice: () => undefined });
    const [short, long] = [1, 2];
    await holder`select pg_advisory_lock(${short}::bigint), pg_advisory_lock(${long}::bigint)`;
    const isWaitedFor = (lock: number, times: number): Promise<void> =>
      until(async () => {
        const [row] = await holder`
          select count(*)::int as count from pg_locks
          where locktype = 'advisory' and objsubid = 1 and objid = ${lock} and not granted`;
        return row!['count'] === times;
      }, `${times} queries wait for the lock ${lock}`);
    const ask = async (lock: number, n: number): Promise<WebSocketClient> => {
      const socket = await wire.socket(server);
      socket.send({ type: 'subscribe', channel: `held:${lock}:${n}`, snapshot: true });
      return socket;
    };
    const first = await ask(short, 0);
    await isWaitedFor(short, 1);
    const others = await Promise.all([1, 2, 3, 4].map((n) => ask(long, n)));
    await isWaitedFor(long, 3);
    // The last of the others has its turn as soon as the first query has ended.
    await holder`select pg_advisory_unlock(${short}::bigint)`;
    await isWaitedFor(long, 4);
    expect((await first.next('snapshot')).rows).toEqual([{ n: 0, held: '' }]);
    await holder`select pg_advisory_unlock(${long}::bigint)`;
    for (const socket of others) await socket.next('snapshot');
    await holder.end();
  });

  test('what is no flag, and a channel without rows, are bad requests', async () => {
    const server = await started;
    const [socket, reply] = await subscribed(server, 'plain');
    expect(reply).toMatchObject({ type: 'error', code: 'bad_request', channel: 'plain' });
    expect(await socket.request({ type: 'subscribe', channel: 'plain', snapshot: 'yes' })).toMatchObject({
      code: 'bad_request',
    });
    expect(await socket.request({ type: 'subscribe', channel: 'plain', snapshot: false })).toMatchObject({
      type: 'subscribed',
    });
  });

  describe('a storm', () => {
    const isLong = process.env['LONG'] === '1';
    const crowd = isLong ? 2_000 : 500;
    /** Of a machine that does nothing else; one that does is only asked for an end. */
    const secondsMax = isLong ? 2 : 10;

    test(`of ${crowd} subscribers costs three queries at most`, async () => {
      const server = await started;
      const sockets = await Promise.all(
        Array.from({ length: crowd }, () => wire.socket(server, { timeoutMs: 30_000 })),
      );
      const startedAt = performance.now();
      const before = (await samples(server)).get('sobranie_snapshots_total{outcome="taken"}') ?? 0;
      for (const socket of sockets) socket.send({ type: 'subscribe', channel: 'counted', snapshot: true });
      const frames = await Promise.all(sockets.map((socket) => socket.next('snapshot', 30_000)));
      const seconds = (performance.now() - startedAt) / 1_000;
      const after = (await samples(server)).get('sobranie_snapshots_total{outcome="taken"}') ?? 0;
      expect(frames.every(({ rows, more }) => rows?.length === 100 && more === false)).toBe(true);
      // Each time the query ran, its rows say.
      expect(new Set(frames.map(({ rows }) => JSON.stringify(rows))).size).toBeLessThanOrEqual(3);
      expect(after - before).toBeLessThanOrEqual(3);
      process.stderr.write(`rows for ${crowd}, SYNC=${wire.environment.name}: ${seconds.toFixed(2)} s\n`);
      expect(seconds).toBeLessThan(secondsMax);
    });
  });

  test('nothing is left of what was shared', async () => {
    const server = await started;
    await wire.cutClients();
    await until(async () => (await samples(server)).get('sobranie_subscriptions_active') === 0, 'all have left');
  });
});
