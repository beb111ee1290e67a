// A database whose administrator has other defaults than most: strict isolation, short timeouts, a small encoding, no
// schema public, a search_path that begins with another role's functions and operators. Publishing failed there three times
// as often, sessions were ended under us, and the pool ran what that role had named as PostgreSQL names its own. Each session
// of ours is to do its work whatever the defaults of the database and the role are.

import { afterEach, expect, test } from 'bun:test';
import postgres from 'postgres';
import { EventClient, WebSocketClient, type Frame } from '../support/clients.ts';
import { startNodes, stopNodes } from '../support/nodes.ts';
import { patient } from '../support/patience.ts';
import { sharedCluster } from '../support/postgres.ts';
import { until } from '../support/tcp-client.ts';

patient();

const closers: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
}, 60_000);

const ofDatabase = {
  default_transaction_isolation: 'serializable',
  default_transaction_deferrable: 'on',
  synchronous_commit: 'off',
  search_path: 'lair, pg_catalog',
  'plpgsql.extra_errors': 'all',
  'plpgsql.variable_conflict': 'use_variable',
  standard_conforming_strings: 'off',
  transform_null_equals: 'on',
  array_nulls: 'off',
  bytea_output: 'escape',
  datestyle: 'SQL, DMY',
  intervalstyle: 'sql_standard',
  timezone: 'Pacific/Chatham',
  extra_float_digits: '-15',
};
const ofRole = {
  lock_timeout: '2s',
  idle_in_transaction_session_timeout: '300ms',
  quote_all_identifiers: 'on',
  client_min_messages: 'debug1',
  row_security: 'off',
};

/** What another role made, of the names and arguments that PostgreSQL's own have, or that suit a call better than those. */
const lair = `
  create schema lair;
  create function lair.trap() returns boolean language plpgsql as $$ begin raise exception 'a trap was run'; end $$;
  ${[
    ...['to_json(text[])', 'to_json(text)', 'row_to_json(record)', 'json_build_array(text)', 'concat(text, text)'],
    ...['format(text, text)', 'format(text, text, text)', 'unnest(text[])', 'unnest(bigint[])', 'strpos(text, text)'],
    ...['now()', 'clock_timestamp()', 'pg_current_snapshot()', 'pg_backend_pid()', 'set_config(text, text, boolean)'],
    ...['current_setting(text)', 'current_setting(text, boolean)', 'to_regclass(text)', 'pg_notify(text, text)'],
    ...[
      'to_regprocedure(text)',
      'pg_try_advisory_lock(integer, integer)',
      'regexp_replace(text, text, text)',
      'md5(text)',
    ],
    ...['greatest(bigint, bigint)', 'length(text)', 'octet_length(text)', 'gen_random_uuid()', 'jsonb_typeof(jsonb)'],
  ]
    .map(
      (name) => `create function lair.${name} returns boolean language plpgsql as $$ begin return lair.trap(); end $$;`,
    )
    .join('\n')}
  ${['text', 'bigint', 'integer', 'boolean', 'pg_lsn', 'xid8']
    .flatMap((type) => [
      `create function lair.compare(${type}, ${type}) returns boolean language plpgsql as $$ begin return lair.trap(); end $$;`,
      ...['=', '<>', '<', '>', '<=', '>='].map(
        (sign) => `create operator lair.${sign} (function = lair.compare, leftarg = ${type}, rightarg = ${type});`,
      ),
    ])
    .join('\n')}
  grant usage on schema lair to public;`;

const connect = (url: string, connection = {}): postgres.Sql =>
  postgres(url, { max: 1, onnotice: () => undefined, connection });

interface OwnDatabase {
  readonly name: string;
  readonly url: string;
  readonly superUrl: string;
  readonly admin: postgres.Sql;
}

/** Of a role of the same name. */
async function databaseOf(kind: string, encoding: string): Promise<OwnDatabase> {
  const { port } = await sharedCluster();
  const name = `${kind}_${process.pid}`;
  const admin = connect(`postgres://postgres@127.0.0.1:${port}/postgres`);
  closers.push(async () => {
    await admin.unsafe(`drop database if exists ${name} with (force)`);
    await admin.unsafe(`drop role if exists ${name}`);
    await admin.end({ timeout: 1 });
  });
  await admin.unsafe(`create role ${name} login`);
  await admin.unsafe(
    `create database ${name} owner ${name} template template0 encoding '${encoding}' lc_collate 'C' lc_ctype 'C'`,
  );
  const urlOf = (role: string): string => `postgres://${role}@127.0.0.1:${port}/${name}`;
  return { name, admin, url: urlOf(name), superUrl: urlOf('postgres') };
}

async function hostileDatabase(): Promise<string> {
  const { name, admin, url, superUrl } = await databaseOf('hostile', 'LATIN1');
  const inside = connect(superUrl);
  await inside`drop schema public`;
  await inside.unsafe(lair).simple();
  await inside.end({ timeout: 1 });
  for (const [setting, value] of Object.entries(ofDatabase))
    await admin.unsafe(`alter database ${name} set ${setting} = ${value.includes(' ') ? value : `'${value}'`}`);
  for (const [setting, value] of Object.entries(ofRole))
    await admin.unsafe(`alter role ${name} in database ${name} set ${setting} = '${value}'`);
  return url;
}

test('two nodes publish, relay, read and know who is there', async () => {
  const url = await hostileDatabase();
  const nodes = await startNodes(2, () => ({ SYNC: 'postgres', DATABASE_URL: url }));
  closers.push(() => stopNodes(nodes));
  const [one, two] = nodes as [(typeof nodes)[0], (typeof nodes)[0]];
  const sql = connect(url, { search_path: 'pg_catalog' });
  closers.push(() => sql.end({ timeout: 1 }));
  await sql`create schema shop`;
  await sql`create table shop.item (id int primary key, body text, at timestamptz, bytes bytea)`;
  await sql`select realtime.watch('shop.item', array['item'])`;

  const sockets = await Promise.all(nodes.map((node) => WebSocketClient.open(node.url)));
  closers.push(() => Promise.all(sockets.map((socket) => socket.cut())));
  const stream = await EventClient.open(two.url, { query: 'channels=item' });
  closers.push(() => stream.cut());
  for (const socket of sockets)
    for (const channel of ['item', 'room:1'])
      expect((await socket.request({ type: 'subscribe', channel, presence: channel === 'room:1' })).type).toBe(
        'subscribed',
      );

  // Both nodes append at once, and the relay between them.
  const count = 100;
  const published = Array.from({ length: count }, async (_, index) => {
    // The key makes it safe to send it again, to a machine that is too busy to answer within a second.
    const body = JSON.stringify({ channel: 'room:1', data: index, key: `key ${index}` });
    const headers = { 'content-type': 'application/json' };
    const send = (): Promise<Response> =>
      fetch(`${nodes[index % 2]!.url}/realtime/publish`, { method: 'POST', body, headers });
    await until(async () => (await send()).status === 200, `publication ${index} is taken`, 60_000, 100);
  });
  for (let id = 1; id <= 20; id++)
    await sql`insert into shop.item values (${id}, 'é', '2026-01-02T03:04:05Z', decode('00ff', 'hex'))`;
  await Promise.all(published);

  const heard = async (socket: WebSocketClient, channel: string, wanted: number): Promise<Frame[]> => {
    const frames: Frame[] = [];
    while (frames.length < wanted) {
      const frame = await socket.next('message', 60_000);
      (frame.channel === channel ? frames : others).push(frame);
    }
    return frames;
  };
  const others: Frame[] = [];
  for (const socket of sockets) {
    others.length = 0;
    const room = await heard(socket, 'room:1', count);
    expect(room.map(({ offset }) => offset)).toEqual(Array.from({ length: count }, (_, index) => index + 1));
    const items = [...others, ...(await heard(socket, 'item', 20 - others.length))];
    expect(items.map(({ offset }) => offset)).toEqual(Array.from({ length: 20 }, (_, index) => index + 1));
    expect(items[0]!.data).toMatchObject({
      data: { id: 1, body: 'é', at: '2026-01-02T03:04:05+00:00', bytes: '\\x00ff' },
    });
  }
  expect((await stream.next('message', 60_000)).frame.offset).toBe(1);
  const page = await sockets[0]!.request({ type: 'history', channel: 'room:1', limit: 10 });
  expect(page).toMatchObject({ type: 'history', offset: count });
  for (const node of [one, two])
    await until(
      async () => {
        const response = await fetch(`${node.url}/realtime/channels/room:1/presence`);
        return ((await response.json()) as Frame).count === 2;
      },
      'both are there',
      60_000,
    );
  // What failed and was tried again is in the log: serialization, timeouts of statements, locks and transactions.
  for (const node of nodes)
    expect(node.stdout()).not.toMatch(/"code":"(?:40001|57014|55P03|25P0[234])"|a trap was run/);
}, 120_000);

// A retry of what the encoding lacks fails for ever: it was answered as `unavailable`, which clients repeat.
for (const sync of ['postgres', 'memory'] as const)
  test(`an emoji into a database that lacks it, SYNC=${sync}`, async () => {
    const { url } = await databaseOf(`japanese_${sync}`, 'EUC_JP');
    const nodes = await startNodes(1, () => ({ SYNC: sync, DATABASE_URL: url }));
    closers.push(() => stopNodes(nodes));
    const [node] = nodes as [(typeof nodes)[0]];
    const sql = connect(url);
    closers.push(() => sql.end({ timeout: 1 }));
    await sql`create table item (id int primary key, body text)`;
    await sql`select realtime.watch('item', array['item', 'of:{body}'])`;
    const socket = await WebSocketClient.open(node.url);
    closers.push(() => socket.cut());
    for (const channel of ['item', 'room:1']) await socket.request({ type: 'subscribe', channel });

    await sql`insert into item values (1, 'ひらがな')`;
    expect((await socket.next('message', 60_000)).data).toMatchObject({ data: { body: 'ひらがな' } });
    // A character that Unicode lacks makes no channel. It made the application's own statement fail.
    await sql`insert into item values (2, convert_from('\\xa9a1', 'EUC_JP'))`;
    expect(await socket.next('gap', 60_000)).toMatchObject({ channel: 'item', reason: 'trimmed' });
    const publish = async (data: string): Promise<{ status: number; error?: Frame }> => {
      const body = JSON.stringify({ channel: 'room:1', data });
      const headers = { 'content-type': 'application/json' };
      const response = await fetch(`${node.url}/realtime/publish`, { method: 'POST', body, headers });
      return { status: response.status, ...((await response.json()) as { error?: Frame }) };
    };
    const refused = { code: 'bad_request', retryable: false };
    const [byHttp, bySocket] = [
      await publish('😀'),
      await socket.request({ type: 'publish', channel: 'room:1', data: '😀' }),
    ];
    if (sync === 'postgres') {
      expect(byHttp).toMatchObject({ status: 400, error: refused });
      expect(bySocket).toMatchObject({ type: 'error', ...refused });
      const entered = await socket.request({ type: 'subscribe', channel: 'room:2', presence: { name: '😀' } });
      expect(entered).toMatchObject({ type: 'error', ...refused });
    } else {
      // The log is in memory, where it is a text as any other.
      expect([byHttp.status, bySocket.type]).toEqual([200, 'published']);
    }
    expect(await publish('カタカナ')).toMatchObject({ status: 200 });
    const datas: unknown[] = [];
    while (datas.at(-1) !== 'カタカナ') datas.push((await socket.next('message', 60_000)).data);
    expect(datas).toEqual(sync === 'postgres' ? ['カタカナ'] : ['😀', '😀', 'カタカナ']);
  }, 120_000);
