// The dashboard and the alerts that ship, with a real Prometheus and Alertmanager over a pair of loaded nodes: every
// panel has data, and a fault that is caused is the alert that fires, and ends with it.

import { expect, test } from 'bun:test';
import { readFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import postgres from 'postgres';
import { dashboardFile, dashboardText, rows } from '../../scripts/dashboards.ts';
import { EventClient, WebSocketClient } from '../support/clients.ts';
import { readDocument } from '../support/documents.ts';
import { startNode, startNodes, stopNodes } from '../support/nodes.ts';
import { patient } from '../support/patience.ts';
import { createDatabase } from '../support/postgres.ts';
import { rulesFile, startMonitoring } from '../support/prometheus.ts';
import { startProxy } from '../support/proxy.ts';
import { startRedis } from '../support/redis.ts';
import { until } from '../support/tcp-client.ts';

patient();

const isLong = process.env['LONG'] === '1';

interface Rule {
  readonly alert: string;
  readonly annotations: { readonly runbook: string };
}

const { groups } = Bun.YAML.parse(readFileSync(rulesFile, 'utf8')) as { groups: { rules: Rule[] }[] };
const alerts = groups.flatMap(({ rules }) => rules);

test('promtool of prometheus runs the tests of the rules', async () => {
  const check = Bun.spawn(['promtool', 'test', 'rules', 'rules.test.yml'], {
    cwd: dirname(rulesFile),
    stdout: 'pipe',
    stderr: 'pipe',
  });
  const [out, errors] = await Promise.all([check.stdout.text(), check.stderr.text()]);
  expect([await check.exited, errors, out.includes('SUCCESS')]).toEqual([0, '', true]);
});

test('each alert has its paragraph, and each paragraph its alert', () => {
  const { anchors, text } = readDocument('docs/operate.md');
  for (const { alert, annotations } of alerts) {
    const [path, anchor = ''] = annotations.runbook.split('#');
    expect([alert, path, anchors.has(anchor)]).toEqual([alert, 'docs/operate.md', true]);
  }
  const [, section = ''] = /\n## Alerts\n([^]*?)\n## /.exec(text) ?? [];
  expect(section.match(/^### /gm)).toHaveLength(alerts.length);
});

test('the dashboard is what the code makes', () => {
  expect(readFileSync(dashboardFile, 'utf8')).toBe(dashboardText());
});

test('with prometheus-alertmanager: every panel shows something, and faults that are caused are told', async () => {
  const [redis, { url }] = await Promise.all([startRedis(), createDatabase({ migrated: true })]);
  const { port } = new URL(url);
  // The first node relays, and its database can become slow. The second one's can be taken away, and its Redis be slow.
  const [relayed, proxy, toRedis] = await Promise.all([
    startProxy({ port: Number(port) }),
    startProxy({ port: Number(port) }),
    startProxy({ port: redis.port }),
  ]);
  const settings = { SYNC: 'redis', REDIS_URL: redis.url, MAX_CONNECTIONS: '10' };
  const [one, two] = await startNodes(2, (index) =>
    index === 0
      ? { ...settings, DATABASE_URL: relayed.through(url) }
      : {
          ...settings,
          REDIS_URL: toRedis.through(redis.url),
          DATABASE_URL: proxy.through(url),
          ROLE: 'ws,sse,api',
          BUN_OPTIONS: `--preload=${resolve(import.meta.dir, '../support/broken-fanout.ts')}`,
        },
  );
  if (one === undefined || two === undefined) throw new Error('two nodes were started');
  const monitoring = await startMonitoring([one, two].map((node) => new URL(node.url).host));
  const { notified } = monitoring;
  /** Of the last notice of this alert, if there was any: `firing` or `resolved`. */
  const stateOf = (alert: string): string | undefined =>
    notified.findLast((each) => each.startsWith(`${alert} `))?.slice(alert.length + 1);
  const told = (what: string, timeoutMs = 90_000): Promise<void> => {
    const [alert = '', state] = what.split(' ');
    return until(
      () => stateOf(alert) === state,
      () => `${what}; told: ${notified.join(', ')}`,
      timeoutMs,
      100,
    );
  };
  /** Goes on causing it until the alert fires. */
  const provoke = async (alert: string, cause: () => Promise<unknown>): Promise<void> => {
    let fires = false;
    const firing = told(`${alert} firing`).finally(() => (fires = true));
    while (!fires) await cause();
    await firing;
  };
  const sql = postgres(url, { max: 1, onnotice: () => undefined });
  await sql`create table item (id serial primary key, room text)`;
  await sql`select realtime.watch('item', array['items', 'room:{room}'])`;
  const sockets = await Promise.all([one, two].map((node) => WebSocketClient.open(node.url)));
  const streams = await Promise.all([one, two].map((node) => EventClient.open(node.url, { query: 'channels=items' })));
  const [socket] = sockets as [WebSocketClient, WebSocketClient];
  for (const each of sockets) await each.request({ type: 'subscribe', channel: 'items', presence: true });
  let running = true;
  const load = (async () => {
    while (running) {
      await sql`insert into item (room) values ('a')`;
      await socket.request({ type: 'publish', channel: 'items', data: 1 }).catch(() => undefined);
      await (await WebSocketClient.open(one.url)).close();
      await Bun.sleep(50);
    }
    // Where the test has failed, what it writes to may be gone.
  })().catch(() => undefined);

  const silent = async (): Promise<string[]> => {
    const found = await Promise.all(
      Object.values(rows).flatMap((panels) =>
        panels.flatMap(({ title, queries }) =>
          queries.map(async ({ expr }) => {
            const shown = expr.replaceAll('$__rate_interval', '10s').replaceAll('$instance', '.*');
            return (await monitoring.query(shown)).some(({ value }) => Number.isFinite(value))
              ? []
              : [`${title}: ${expr}`];
          }),
        ),
      ),
    );
    return found.flat();
  };
  let empty: string[] = [];
  await until(
    async () => (empty = await silent()).length === 0,
    () => `every panel has data; without: ${empty.join('\n')}`,
    40_000,
    250,
  );
  // Those of time alone may fire here: their waits are left out, and a busy machine is slow.
  const caused = ['SobranieLosses firing', 'SobranieConnectionsNearLimit firing', 'SobranieSyncDown firing'];
  expect(notified.filter((each) => caused.includes(each))).toEqual([]);

  // A position of another log; a column that is gone; and rooms for ten connections, of which nine are taken.
  const lost = await socket.request({ type: 'subscribe', channel: 'old', since: { epoch: 'x', offset: 1 } });
  expect(lost).toMatchObject({ recovered: false });
  await sql`alter table item drop column room`;
  await sql`alter table item add column room text`;
  const crowd = await Promise.all(Array.from({ length: 7 }, () => WebSocketClient.open(two.url)));
  const [hearer] = crowd as [WebSocketClient, ...WebSocketClient[]];
  await hearer.request({ type: 'subscribe', channel: 'broken:a' });
  // Publications reach the second node late, the relay reads slower than others write, connections are turned away,
  // and what is published to one channel cannot be written.
  toRedis.delayMs = 700;
  relayed.delayMs = 500;
  await Promise.all([
    told('SobranieLosses firing'),
    told('SobranieConnectionsNearLimit firing'),
    told('SobranieSyncSlow firing'),
    provoke('SobranieOutboxGrowing', async () => {
      await sql`insert into item (room) select 'many' from generate_series(1, 1500)`;
      await Bun.sleep(500);
    }),
    provoke('SobranieRefusals', async () => {
      const refused = Array.from({ length: 10 }, () => fetch(`${one.url}/realtime/events?channels=a%20b`));
      for (const answer of await Promise.all(refused)) expect(answer.status).toBe(400);
      await Bun.sleep(200);
    }),
    provoke('SobranieDeliveryFailures', async () => {
      await socket.request({ type: 'publish', channel: 'broken:a', data: 1 });
      await Bun.sleep(1_000);
    }),
  ]);
  toRedis.delayMs = 0;
  relayed.delayMs = 0;
  await Promise.all(crowd.map((each) => each.close()));
  // A neighbour takes the processor away, again and again.
  await provoke('SobranieEventLoopLag', async () => {
    process.kill(two.pid, 'SIGSTOP');
    await Bun.sleep(400);
    process.kill(two.pid, 'SIGCONT');
    await Bun.sleep(100);
  });
  const mended = ['ConnectionsNearLimit', 'SyncSlow', 'OutboxGrowing', 'Refusals', 'DeliveryFailures', 'EventLoopLag'];
  await Promise.all([...mended, 'Losses'].map((alert) => told(`Sobranie${alert} resolved`)));
  await until(() => stateOf('SobranieSyncDown') !== 'firing', 'the sync layer is well', 60_000, 100);

  await redis.kill9();
  await told('SobranieSyncDown firing');
  await redis.start();
  await told('SobranieSyncDown resolved');

  // It is reached, and takes nothing: no alert told it.
  await redis.admin.config('SET', 'maxmemory', '1mb');
  await Promise.all([told('SobranieNotReady firing'), told('SobranieErrors firing')]);
  await redis.admin.config('SET', 'maxmemory', '0');
  await Promise.all([told('SobranieNotReady resolved'), told('SobranieErrors resolved')]);

  if (isLong) {
    proxy.mode = 'blackhole';
    proxy.cut();
    await told('SobranieDatabaseDown firing', 60_000);
    proxy.mode = 'forward';
    await told('SobranieDatabaseDown resolved', 60_000);

    // Deaf: connections stand, and nobody answers.
    redis.pause();
    await told('SobranieSyncDown firing');
    // What is written meanwhile waits.
    await told('SobranieRelayStuck firing', 60_000);
    redis.resume();
    await told('SobranieRelayStuck resolved', 60_000);

    await sql`select realtime.watch('item', array['items', 'gone:{room}'])`;
    await sql`alter table item drop column room`;
    running = false;
    await load;
    await sql`insert into item default values`;
    await told('SobranieCaptureFaults firing', 60_000);
    await told('SobranieCaptureFaults resolved', 60_000);

    // Another session takes the relay's lock.
    await sql.unsafe(`select pg_terminate_backend(pid) from pg_locks
      where locktype = 'advisory' and classid = 1937006946 and objid = 2 and granted`);
    await sql`select pg_advisory_lock(1937006946, 2)`;
    await told('SobranieNoRelay firing', 60_000);
    await sql`select pg_advisory_unlock(1937006946, 2)`;
    await told('SobranieNoRelay resolved', 60_000);

    await two.kill9();
    await told('SobranieNodeDown firing', 60_000);
    const again = await startNode({ ...settings, DATABASE_URL: url, NODE_ID: 'node-2', PORT: String(two.port) });
    await told('SobranieNodeDown resolved', 60_000);
    await stopNodes([again]);
  }
  running = false;
  await load;
  await Promise.all([...sockets, ...streams].map((each) => each.cut()));
  await monitoring.close();
  await sql.end();
  await stopNodes(isLong ? [one] : [one, two]);
  for (const each of [relayed, proxy, toRedis]) await each.close();
  await redis.close();
}, 600_000);
