// Metrics: what is counted under which name, and that no client can make the number of series grow.

import { afterEach, expect, test } from 'bun:test';
import { rateStepMs, rateStepsMax, seriesOf, together, type Rates } from '../../src/core/rates.ts';
import { RateHistory } from '../../src/metrics/rate-history.ts';
import { createMetrics, type Metrics } from '../../src/metrics/metrics.ts';
import { transportKinds } from '../../src/app/transports.ts';
import { countedBy, renderTogether } from '../../src/metrics/together.ts';
import { clientCodesMax, namespacesMax } from '../../src/metrics/namespace-labels.ts';
import { HandClock } from '../support/hub.ts';
import { until } from '../support/tcp-client.ts';

const open: Metrics[] = [];
afterEach(() => {
  for (const metrics of open.splice(0)) metrics.close();
});

function create(): Metrics {
  const metrics = createMetrics({ node: 'n1', version: '1.2.3', transports: transportKinds });
  open.push(metrics);
  return metrics;
}

/** The samples as `name{labels}` → value. */
async function samples(metrics: Metrics): Promise<Map<string, number>> {
  return parse((await metrics.render()).body);
}

function parse(body: string): Map<string, number> {
  const lines = body.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
  return new Map(
    lines.map((line) => [line.slice(0, line.lastIndexOf(' ')), Number(line.slice(line.lastIndexOf(' ')))]),
  );
}

test('connections are counted by how they ended, and while they last', async () => {
  const metrics = create();
  metrics.connection('websocket', 'accepted');
  metrics.connection('websocket', 'accepted');
  metrics.connection('websocket', 'limit');
  metrics.connection('sse', 'accepted');
  metrics.disconnection('websocket', 1006);
  const found = await samples(metrics);
  expect(found.get('sobranie_ws_connections_active{server_id="n1"}')).toBe(1);
  expect(found.get('sobranie_sse_connections_active{server_id="n1"}')).toBe(1);
  expect(found.get('sobranie_connections_total{transport="websocket",outcome="limit"}')).toBe(1);
  expect(found.get('sobranie_disconnects_total{transport="websocket",code="1006"}')).toBe(1);
});

test('a publication counts once as published, and once per connection as delivered', async () => {
  const metrics = create();
  metrics.published('client', 'chat:42');
  metrics.delivered('chat:42', 1_000, 0.004);
  metrics.delivered('chat:42', 0, 0.004);
  const found = await samples(metrics);
  expect(found.get('sobranie_publications_total{source="client",channel="chat"}')).toBe(1);
  expect(found.get('sobranie_messages_sent_total{type="message",channel="chat"}')).toBe(1_000);
  expect(found.get('sobranie_message_delivery_duration_seconds_bucket{le="0.001"}')).toBe(0);
  expect(found.get('sobranie_message_delivery_duration_seconds_bucket{le="0.005"}')).toBe(1);
  expect(found.get('sobranie_message_delivery_duration_seconds_count')).toBe(1);
});

test('loss, recoveries and errors are shown at 0 before the first', async () => {
  const metrics = create();
  const before = await samples(metrics);
  expect(before.get('sobranie_messages_lost_total{reason="trimmed"}')).toBe(0);
  expect(before.get('sobranie_recoveries_total{outcome="gap"}')).toBe(0);
  expect(before.get('sobranie_errors_total{code="internal"}')).toBe(0);
  expect(before.get('sobranie_broadcast_failures_total')).toBe(0);
  metrics.lost('overflow', 7);
  metrics.recovery('recovered');
  metrics.error('forbidden');
  metrics.broadcastFailed();
  metrics.rateLimited('commands');
  metrics.received('publish');
  const found = await samples(metrics);
  expect(found.get('sobranie_messages_lost_total{reason="overflow"}')).toBe(7);
  expect(found.get('sobranie_recoveries_total{outcome="recovered"}')).toBe(1);
  expect(found.get('sobranie_errors_total{code="forbidden"}')).toBe(1);
  expect(found.get('sobranie_broadcast_failures_total')).toBe(1);
  expect(found.get('sobranie_rate_limited_total{kind="commands"}')).toBe(1);
  expect(found.get('sobranie_messages_received_total{type="publish"}')).toBe(1);
});

test('the sync layer is shown per adapter', async () => {
  const metrics = create();
  metrics.up('redis', true);
  metrics.message('redis', 'in', 5);
  metrics.message('redis', 'out', 2);
  metrics.delay('redis', -0.002);
  metrics.up('redis', false);
  metrics.failed('redis');
  metrics.reconnected('redis');
  const found = await samples(metrics);
  expect(found.get('sobranie_sync_up{adapter="redis"}')).toBe(0);
  expect(found.get('sobranie_sync_messages_total{adapter="redis",direction="in"}')).toBe(5);
  expect(found.get('sobranie_sync_messages_total{adapter="redis",direction="out"}')).toBe(2);
  expect(found.get('sobranie_sync_delay_seconds_sum{adapter="redis"}')).toBe(0);
  expect(found.get('sobranie_sync_errors_total{adapter="redis"}')).toBe(1);
  expect(found.get('sobranie_sync_reconnects_total{adapter="redis"}')).toBe(1);
});

test('sources are read at each scrape, and what has no source is not shown', async () => {
  const metrics = create();
  let subscriptions = 3;
  let pending: number | undefined = 7;
  metrics.readFrom({ subscriptions: () => subscriptions, relayLeader: () => true, outboxPending: () => pending });
  expect((await samples(metrics)).get('sobranie_subscriptions_active')).toBe(3);
  expect((await samples(metrics)).get('sobranie_outbox_pending')).toBe(7);
  subscriptions = 4;
  pending = undefined;
  const found = await samples(metrics);
  expect(found.get('sobranie_subscriptions_active')).toBe(4);
  expect(found.get('sobranie_relay_leader')).toBe(1);
  expect(found.has('sobranie_outbox_pending')).toBe(false);
});

test('made-up namespaces do not make up series', async () => {
  const metrics = create();
  for (let index = 0; index < namespacesMax * 3; index++) metrics.published('client', `made${index}:x`);
  const found = await samples(metrics);
  const series = [...found.keys()].filter((name) => name.startsWith('sobranie_publications_total'));
  expect(series).toHaveLength(namespacesMax + 1);
  expect(found.get('sobranie_publications_total{source="client",channel="other"}')).toBe(namespacesMax * 2);
});

// A client closes with any code from 4000 to 4999 that it likes: each once made a time series of its own, for good.
test('clients cannot make up time series by their close codes', async () => {
  const metrics = create();
  for (let code = 4_000; code < 5_000; code++) metrics.disconnection('websocket', code);
  for (const code of [1000, 1001, 1006, 1009]) metrics.disconnection('websocket', code);
  const found = await samples(metrics);
  const of = (code: number | string) => found.get(`sobranie_disconnects_total{transport="websocket",code="${code}"}`);
  expect([4_000, 'other', 1000, 1001, 1006, 1009].map(of)).toEqual([1, 1_000 - clientCodesMax, 1, 1, 1, 1]);
  const series = [...found.keys()].filter((name) => name.startsWith('sobranie_disconnects_total'));
  expect(series).toHaveLength(clientCodesMax + 5);
});

test('two servers in one process count apart', async () => {
  const [one, two] = [create(), create()];
  one.broadcastFailed();
  expect((await samples(one)).get('sobranie_broadcast_failures_total')).toBe(1);
  expect((await samples(two)).get('sobranie_broadcast_failures_total')).toBe(0);
});

test('several processes answer as one: what they count is summed, and what has ended stays counted', async () => {
  const [one, two] = [
    createMetrics({ node: 'm-1', version: '1', transports: transportKinds }),
    createMetrics({ node: 'm-2', version: '1', transports: transportKinds }),
  ];
  open.push(one, two);
  one.readFrom({ subscriptions: () => 2, relayLeader: () => true, databaseUp: () => true, outboxPending: () => 5 });
  two.readFrom({
    subscriptions: () => 3,
    relayLeader: () => false,
    databaseUp: () => false,
    outboxPending: () => undefined,
  });
  for (const metrics of [one, two]) {
    metrics.connection('websocket', 'accepted');
    metrics.up('redis', metrics === one);
    metrics.delivered('chat:1', 10, 0.003);
    metrics.delay('redis', 0.02);
  }
  const snapshots = [await one.snapshot(), await two.snapshot()];
  // As they arrive from another process.
  const sent = JSON.parse(JSON.stringify(snapshots)) as typeof snapshots;
  const together = parse(await renderTogether(sent));
  const before = await countedBy(sent);
  const after = parse(await renderTogether([...sent, before]));
  const expected: readonly [string, number, number][] = [
    ['sobranie_ws_connections_active{server_id="m-1"}', 1, 1],
    ['sobranie_ws_connections_active{server_id="m-2"}', 1, 1],
    ['sobranie_connections_total{transport="websocket",outcome="accepted"}', 2, 4],
    ['sobranie_messages_sent_total{type="message",channel="chat"}', 20, 40],
    ['sobranie_message_delivery_duration_seconds_bucket{le="0.005"}', 2, 4],
    ['sobranie_message_delivery_duration_seconds_bucket{le="+Inf"}', 2, 4],
    ['sobranie_message_delivery_duration_seconds_sum', 0.006, 0.012],
    ['sobranie_sync_delay_seconds_count{adapter="redis"}', 2, 4],
    ['sobranie_subscriptions_active', 5, 5],
    ['sobranie_relay_leader', 1, 1],
    ['sobranie_database_up', 0, 0],
    ['sobranie_sync_up{adapter="redis"}', 0, 0],
    ['sobranie_outbox_pending', 5, 5],
    [`sobranie_build_info{version="1",bun="${Bun.version}"}`, 1, 1],
  ];
  for (const [name, live, withEnded] of expected) {
    expect([name, together.get(name), after.get(name)]).toEqual([name, live, withEnded]);
  }
  expect(together.has('process_resident_memory_bytes{server_id="m-2"}')).toBe(true);
});

test('the process shows believable figures', async () => {
  const metrics = create();
  const found = await samples(metrics);
  const value = (name: string) => found.get(name) ?? Number.NaN;
  expect(value('process_resident_memory_bytes{server_id="n1"}')).toBeWithin(5e6, 64e9);
  expect(value('sobranie_heap_used_bytes{server_id="n1"}')).toBeWithin(
    1e5,
    value('process_resident_memory_bytes{server_id="n1"}'),
  );
  expect(value('process_cpu_seconds_total{server_id="n1"}')).toBeWithin(0.001, 36_000);
  expect(
    Math.abs(value('process_start_time_seconds{server_id="n1"}') + process.uptime() - Date.now() / 1_000),
  ).toBeLessThan(5);
  expect(value('sobranie_event_loop_lag_seconds{server_id="n1",statistic="p99"}')).toBeWithin(0, 60);
  const { contentType } = await metrics.render();
  expect(contentType).toStartWith('text/plain');
});

test('a publication that comes from the future, by the clock of another machine, took no time', async () => {
  const metrics = create();
  metrics.delivered('chat:42', 1, -3);
  metrics.delay('redis', -3);
  const found = await samples(metrics);
  expect(found.get('sobranie_message_delivery_duration_seconds_sum')).toBe(0);
  expect(found.get('sobranie_sync_delay_seconds_sum{adapter="redis"}')).toBe(0);
});

test('how late timers ran is counted from one scrape to the next', async () => {
  const metrics = create();
  const latest = async () =>
    (await samples(metrics)).get('sobranie_event_loop_lag_seconds{server_id="n1",statistic="max"}') ?? 0;
  await until(async () => {
    const end = performance.now() + 200;
    while (performance.now() < end);
    await Bun.sleep(25);
    return (await latest()) > 0.1;
  }, 'the held loop is seen');
  await until(async () => (await latest()) < 0.1, 'it is forgotten');
});

test('rates are kept for fifteen minutes, step by step, and nodes are added up by step', async () => {
  const clock = new HandClock();
  const metrics = create();
  const history = new RateHistory({ clock, read: () => metrics.totals(), failed: () => undefined });
  await history.look();
  const begin = Math.floor(clock.now() / rateStepMs);
  expect(history.since(0)).toMatchObject({ series: { connections: [] } });
  metrics.connection('websocket', 'accepted');
  metrics.connection('sse', 'accepted');
  for (let count = 0; count < 10; count++) metrics.published('api', 'news');
  metrics.delivered('news', 20, 0.001);
  metrics.received('publish');
  metrics.error('forbidden');
  metrics.delay('memory', 0.25);
  metrics.delay('memory', 0.75);
  clock.advance(rateStepMs);
  await history.look();
  // A second look in the same step is none.
  await history.look();
  const series = {
    connections: [2],
    publications: [2],
    deliveries: [4],
    commands: [0.2],
    errors: [0.2],
    delaySeconds: [0.2],
    delays: [0.4],
  };
  expect(history.since(0)).toEqual({ from: begin, series });
  expect(history.since(begin).series.connections).toEqual([]);
  // A process that stood still has the same rate for each step that it missed.
  for (let count = 0; count < 30; count++) metrics.published('api', 'news');
  clock.advance(3 * rateStepMs);
  await history.look();
  expect(history.since(begin)).toMatchObject({ from: begin + 1, series: { publications: [2, 2, 2] } });
  for (let step = 0; step < 200; step++) {
    clock.advance(rateStepMs);
    await history.look();
  }
  expect(history.since(0)).toMatchObject({ from: begin + 24 });
  expect(history.since(0).series.publications).toHaveLength(rateStepsMax);

  const of = (from: number, connections: number[]): Rates => ({ from, series: seriesOf(() => connections) });
  expect(together(of(5, [1, 2]), of(6, [10, 20])).series.errors).toEqual([1, 12, 20]);
  expect(together(of(5, [1, 2]), of(6, [10, 20])).from).toBe(5);
  expect(together(of(5, []), of(9, [1]))).toMatchObject({ from: 9, series: { errors: [1] } });
  // One whose clock is days ahead does not make the others' answer endless.
  expect(together(of(5, [1]), of(1e6, [2])).series.errors).toHaveLength(rateStepsMax);
});
