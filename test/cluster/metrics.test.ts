// What `/metrics` promises, on two real nodes over one database: each name with its labels, and what the figures mean.

import { afterAll, beforeAll, expect, test } from 'bun:test';
import postgres from 'postgres';
import { EventClient, WebSocketClient } from '../support/clients.ts';
import { startNode, stopNodes } from '../support/nodes.ts';
import { patient } from '../support/patience.ts';
import { createDatabase } from '../support/postgres.ts';
import type { RunningServer } from '../support/process.ts';
import { until } from '../support/tcp-client.ts';
import { samples } from '../wire/wire.ts';

patient();

let one: RunningServer;
let two: RunningServer;
let sql: postgres.Sql;

beforeAll(async () => {
  const { url } = await createDatabase({ migrated: true });
  sql = postgres(url, { max: 1, onnotice: () => undefined });
  const settings = { DATABASE_URL: url, API_KEY: 'a-key-of-some-length-0123456789' };
  one = await startNode({ ...settings, NODE_ID: 'one' });
  await one.waitForOutput(/relaying table changes/);
  two = await startNode({ ...settings, NODE_ID: 'two' });
}, 60_000);

afterAll(async () => {
  await sql.end();
  await stopNodes([one, two]);
}, 60_000);

async function scrape(node: RunningServer): Promise<string> {
  return (await fetch(`${node.url}/metrics`)).text();
}

/** As the contract lists them, but for labels that only one engine has. */
const promised: Readonly<Record<string, readonly string[]>> = {
  sobranie_ws_connections_active: ['server_id'],
  sobranie_sse_connections_active: ['server_id'],
  sobranie_connections_total: ['transport', 'outcome'],
  sobranie_disconnects_total: ['transport', 'code'],
  sobranie_subscriptions_active: [],
  sobranie_channels_active: [],
  sobranie_messages_sent_total: ['type', 'channel'],
  sobranie_messages_received_total: ['type'],
  sobranie_publications_total: ['source', 'channel'],
  sobranie_message_delivery_duration_seconds: ['le'],
  sobranie_broadcast_failures_total: [],
  sobranie_messages_lost_total: ['reason'],
  sobranie_recoveries_total: ['outcome'],
  sobranie_rate_limited_total: ['kind'],
  sobranie_errors_total: ['code'],
  sobranie_sync_up: ['adapter'],
  sobranie_sync_messages_total: ['adapter', 'direction'],
  sobranie_sync_delay_seconds: ['adapter', 'le'],
  sobranie_sync_reconnects_total: ['adapter'],
  sobranie_sync_errors_total: ['adapter'],
  sobranie_outbox_pending: [],
  sobranie_outbox_lag_seconds: [],
  sobranie_relay_leader: [],
  sobranie_database_up: [],
  sobranie_ready: [],
  sobranie_build_info: ['version', 'bun'],
  sobranie_capture_faults_total: ['table'],
  sobranie_rows_parked_total: [],
  sobranie_presence_members: [],
  sobranie_shutdown_duration_seconds: [],
  process_resident_memory_bytes: ['server_id'],
  process_cpu_seconds_total: ['server_id'],
  process_start_time_seconds: ['server_id'],
};

test('everything that is promised is there with its labels, and says what was done', async () => {
  await sql`create table item (id int primary key, room text)`;
  await sql`select realtime.watch('item', array['items', 'room:{room}'])`;
  const socket = await WebSocketClient.open(one.url);
  const present = { type: 'subscribe', channel: 'items', presence: true };
  await socket.request(present);
  const short = await WebSocketClient.open(one.url);
  await short.close();
  const stream = await EventClient.open(one.url, { query: 'channels=items,other' });
  await sql`insert into item select n, 'x' from generate_series(1, 3) n`;
  for (let count = 0; count < 3; count++) await Promise.all([socket.next('message'), stream.next('message')]);
  // A position of another log: whatever was missed, the client learns that it is.
  const gapped = await socket.request({ type: 'subscribe', channel: 'lost', since: { epoch: 'other', offset: 7 } });
  expect(gapped).toMatchObject({ recovered: false });
  await socket.request({ type: 'publish', channel: '$system', data: 1 });
  // The column that names a channel is gone: a fault, but the statement and the other channel do not notice.
  await sql`alter table item drop column room`;
  await sql`insert into item (id) values (4)`;
  await Promise.all([socket.next('message'), stream.next('message')]);
  // The relay looks every few seconds.
  const fault = 'sobranie_capture_faults_total{table="item"}';
  await until(async () => (await samples(one)).has(fault), 'the fault is seen', 15_000);

  const found = await samples(one);
  const labelsOf = (name: string): Set<string> => {
    const series = [...found.keys()].filter((key) => new RegExp(`^${name}(?:_bucket|_sum|_count)?(?:\\{|$)`).test(key));
    expect([name, series.length > 0]).toEqual([name, true]);
    return new Set(series.flatMap((key) => [...key.matchAll(/[{,](\w+)=/g)].map(([, label = '']) => label)));
  };
  for (const [name, labels] of Object.entries(promised)) {
    expect([name, [...labelsOf(name)].toSorted()]).toEqual([name, labels.toSorted()]);
  }
  const expected: Readonly<Record<string, number>> = {
    'sobranie_ws_connections_active{server_id="one"}': 1,
    'sobranie_sse_connections_active{server_id="one"}': 1,
    'sobranie_connections_total{transport="websocket",outcome="accepted"}': 2,
    'sobranie_disconnects_total{transport="websocket",code="1000"}': 1,
    sobranie_subscriptions_active: 4,
    sobranie_channels_active: 3,
    'sobranie_publications_total{source="database",channel="items"}': 4,
    'sobranie_messages_sent_total{type="message",channel="items"}': 8,
    'sobranie_messages_received_total{type="subscribe"}': 2,
    'sobranie_recoveries_total{outcome="gap"}': 1,
    'sobranie_messages_lost_total{reason="epoch_changed"}': 1,
    'sobranie_errors_total{code="forbidden"}': 1,
    'sobranie_capture_faults_total{table="item"}': 1,
    'sobranie_sync_up{adapter="postgres"}': 1,
    sobranie_database_up: 1,
    sobranie_ready: 1,
    sobranie_relay_leader: 1,
    sobranie_outbox_pending: 0,
    sobranie_presence_members: 1,
    sobranie_shutdown_duration_seconds: 0,
    sobranie_broadcast_failures_total: 0,
  };
  for (const [name, value] of Object.entries(expected)) expect([name, found.get(name)]).toEqual([name, value]);
  await socket.close();
  await stream.cut();
});

test('promtool of prometheus finds nothing to say', async () => {
  for (const node of [one, two]) {
    const stdin = new Blob([await scrape(node)]);
    const check = Bun.spawn(['promtool', 'check', 'metrics'], { stdin, stdout: 'pipe', stderr: 'pipe' });
    const [out, errors] = await Promise.all([check.stdout.text(), check.stderr.text()]);
    expect([await check.exited, out + errors]).toEqual([0, '']);
  }
});

// A node that had led went on showing what waited when it last looked, for ever.
test('what the relay knows is shown by the node that relays alone, and moves with it', async () => {
  const own = ['sobranie_outbox_pending', 'sobranie_outbox_lag_seconds'];
  const shownBy = async (node: RunningServer) => {
    const found = await samples(node);
    return [found.get('sobranie_relay_leader'), ...own.map((name) => found.has(name))];
  };
  await until(async () => (await shownBy(one)).join() === '1,true,true', 'the first shows them');
  expect(await shownBy(two)).toEqual([0, false, false]);
  // Another session takes the lock in the moment in which the relay's is ended.
  await sql.unsafe(`select pg_terminate_backend(pid) from pg_locks
    where locktype = 'advisory' and classid = 1937006946 and objid = 2 and granted`);
  await sql`select pg_advisory_lock(1937006946, 2)`;
  await until(async () => (await shownBy(one)).join() === '0,false,false', 'they vanish');
  expect(await shownBy(two)).toEqual([0, false, false]);
  await sql`select pg_advisory_unlock(1937006946, 2)`;
  await until(
    async () => (await Promise.all([shownBy(one), shownBy(two)])).some((shown) => shown.join() === '1,true,true'),
    'the node that relays shows them',
  );
});
