// Leaving: a server that was asked to end tells its clients, serves them until they go, and ends in time.

import { expect, test } from 'bun:test';
import { EventClient, Refused } from '../support/clients.ts';
import { createDatabase } from '../support/postgres.ts';
import { spawnShell, type RunningServer } from '../support/process.ts';
import { until } from '../support/tcp-client.ts';
import { call, describeWire, errorOf, post, sample } from './wire.ts';
import { patient } from '../support/patience.ts';

patient();

async function draining(server: RunningServer): Promise<void> {
  await until(async () => (await call(server, '/health/ready')).status === 503, 'ready has turned 503');
}

describeWire('Shutdown', (wire) => {
  test('without clients it ends at once, with 0', async () => {
    const server = await wire.start({ SHUTDOWN_TIMEOUT: '1800' });
    const startedAt = performance.now();
    expect(await server.stop('SIGTERM')).toBe(0);
    expect(performance.now() - startedAt).toBeLessThan(2_000);
    expect(await (await wire.start({ SHUTDOWN_TIMEOUT: '1800' })).stop('SIGINT')).toBe(0);
  });

  // Bare event streams stayed for half an hour, and were cut all at once: nothing in a browser reads `drain`.
  test('each connection is told its own moment, and closed then if it has not gone; all are out within the window', async () => {
    const server = await wire.start({ SHUTDOWN_TIMEOUT: '1800', DRAIN_WINDOW: '3' });
    const sockets = await Promise.all(Array.from({ length: 15 }, () => wire.subscriber(server, 'a')));
    const streams = await Promise.all(Array.from({ length: 15 }, () => wire.stream(server, { query: 'channels=a' })));
    await until(async () => (await sample(server, 'sobranie_subscriptions_active')) === 30, 'all are subscribed');
    const startedAt = performance.now();
    const at = (): number => performance.now() - startedAt;
    process.kill(server.pid, 'SIGTERM');
    const [leaver, ...others] = sockets;
    const left = [
      ...others.map(async (socket) => {
        const { after, deadline } = await socket.next('drain');
        expect(Math.abs(deadline! - Date.now() - 3_000)).toBeLessThan(500);
        expect(await socket.closed).toEqual({ code: 1001, reason: 'shutting_down' });
        return { after: after!, at: at() };
      }),
      ...streams.map(async (stream) => {
        const { after } = (await stream.next('drain')).frame;
        // Ended in order, so that a browser comes back by itself.
        expect(await stream.closed).toBe(true);
        return { after: after!, at: at() };
      }),
    ];
    await leaver!.next('drain');
    await leaver!.close();
    const moments = await Promise.all(left);
    for (const { after, at: closedAt } of moments) {
      expect(closedAt).toBeGreaterThan(after - 50);
      expect(closedAt).toBeLessThan(after + 600);
    }
    // Spread over the whole window, not in bursts: each sixth of it has its share.
    const afters = moments.map(({ after }) => after);
    for (let sixth = 0; sixth < 6; sixth++) {
      const here = afters.filter((after) => Math.floor(after / 500) === sixth).length;
      expect(here).toBeGreaterThanOrEqual(3);
      expect(here).toBeLessThanOrEqual(6);
    }
    expect(await server.waitForExit(6_000)).toBe(0);
    expect(at()).toBeLessThan(6_000);
  }, 20_000);

  test('without a window clients are told, served on, and missed by nobody when they have left', async () => {
    const server = await wire.start({ SHUTDOWN_TIMEOUT: '30', DRAIN_WINDOW: '0' });
    const channel = wire.channel();
    const sockets = await Promise.all(Array.from({ length: 20 }, () => wire.subscriber(server, channel)));
    const streams = await Promise.all(
      Array.from({ length: 20 }, () => wire.stream(server, { query: `channels=${channel}` })),
    );
    await until(async () => (await sample(server, 'sobranie_subscriptions_active')) === 40, 'all are subscribed');
    process.kill(server.pid, 'SIGTERM');
    const toldAt = Date.now();
    const drains = [
      ...(await Promise.all(sockets.map((socket) => socket.next('drain')))),
      ...(await Promise.all(streams.map(async (stream) => (await stream.next('drain')).frame))),
    ];
    for (const drain of drains) {
      expect(drain).toEqual({ type: 'drain', after: expect.any(Number), deadline: expect.any(Number) });
      expect(drain.after).toBeGreaterThanOrEqual(0);
      expect(drain.after).toBeLessThanOrEqual(30_000);
      expect(Math.abs(drain.deadline! - (toldAt + 30_000))).toBeLessThan(2_000);
    }
    const moments = drains.map(({ after }) => after!);
    expect(new Set(moments).size).toBeGreaterThan(20);
    expect(Math.max(...moments) - Math.min(...moments)).toBeGreaterThan(500);

    const ready = await call(server, '/health/ready');
    expect([ready.status, ready.body]).toMatchObject([
      503,
      { checks: { sync: { ok: true }, draining: { ok: false } } },
    ]);
    expect((await call(server, '/health/live')).status).toBe(200);
    expect(await sample(server, 'sobranie_shutdown_duration_seconds')).toBeGreaterThan(0);

    const [first, second] = sockets;
    await first!.request({ type: 'publish', channel, data: 'still served' });
    expect(await second!.next('message')).toMatchObject({ data: 'still served' });
    expect((await streams[0]!.next('message')).frame).toMatchObject({ data: 'still served' });
    const later = wire.channel();
    expect(await first!.request({ type: 'subscribe', channel: later })).toMatchObject({ type: 'subscribed' });

    const late = await wire.socket(server);
    expect(await late.closed).toMatchObject({ code: 1001 });
    const refused = await EventClient.open(server.url, { query: 'channels=a' }).catch((error: unknown) => error);
    if (!(refused instanceof Refused)) throw new Error('a stream was opened by a server that ends');
    expect(refused.status).toBe(503);
    expect(Number(refused.headers.get('retry-after'))).toBeGreaterThan(0);
    expect(errorOf(refused.body)).toMatchObject({ code: 'shutting_down', retryable: true });
    const publish = await post(server, '/realtime/publish', { channel, data: 1 });
    expect([publish.status, errorOf(publish.text)]).toMatchObject([503, { code: 'shutting_down', retryable: true }]);

    await Promise.all(streams.map((stream) => stream.cut()));
    await Promise.all(sockets.slice(1).map((socket) => socket.close()));
    expect(await first!.request({ type: 'ping' })).toMatchObject({ type: 'pong' });
    await first!.close();
    expect(await server.waitForExit(5_000)).toBe(0);
  });

  test('after the timeout what is left is closed with 1001, and streams end in order', async () => {
    const server = await wire.start({ SHUTDOWN_TIMEOUT: '1', DRAIN_WINDOW: '0' });
    const socket = await wire.subscriber(server, 'a');
    const stream = await wire.stream(server, { query: 'channels=a' });
    await stream.next('welcome');
    const startedAt = performance.now();
    process.kill(server.pid, 'SIGTERM');
    expect((await stream.next('drain')).frame.after).toBeLessThanOrEqual(1_000);
    expect((await socket.closed).code).toBe(1001);
    expect(performance.now() - startedAt).toBeGreaterThan(900);
    expect(await stream.closed).toBe(true);
    expect(await server.waitForExit(5_000)).toBe(0);
    expect(performance.now() - startedAt).toBeLessThan(4_000);
  });

  test('a client that does not answer its farewell does not keep the server', async () => {
    const server = await wire.start({ SHUTDOWN_TIMEOUT: '0' });
    const [socket, tcp] = [await wire.subscriber(server, 'a'), await wire.tcp(server)];
    tcp.write('GET /realtime/ws HTTP/1.1\r\nHost: a\r\nUpgr');
    socket.pause();
    const startedAt = performance.now();
    expect(await server.stop()).toBe(0);
    expect(performance.now() - startedAt).toBeLessThan(5_000);
  });

  test('the timeout ends a window that is longer', async () => {
    const server = await wire.start({ SHUTDOWN_TIMEOUT: '1', DRAIN_WINDOW: '60' });
    const socket = await wire.subscriber(server, 'a');
    process.kill(server.pid, 'SIGTERM');
    expect((await socket.next('drain')).after).toBeLessThanOrEqual(1_000);
    expect((await socket.closed).code).toBe(1001);
    expect(await server.waitForExit(3_000)).toBe(0);
  });

  // It was killed by it: every client lost its connection at once.
  test('SIGHUP drains, unless it was ignored from the start', async () => {
    const server = await wire.start({ SHUTDOWN_TIMEOUT: '1800' });
    const socket = await wire.subscriber(server, 'a');
    process.kill(server.pid, 'SIGHUP');
    await socket.next('drain');
    await socket.close();
    expect(await server.waitForExit(5_000)).toBe(0);

    // As nohup starts it.
    const DATABASE_URL = (await createDatabase({ migrated: true })).url;
    const settings = { SYNC: 'memory', DATABASE_URL, SHUTDOWN_TIMEOUT: '0' };
    const kept = spawnShell(`trap '' HUP; exec bun src/main.ts`, settings);
    const [, url = ''] = await kept.waitForOutput(/listening on (http:\S+)/, 20_000);
    process.kill(kept.pid, 'SIGHUP');
    expect((await fetch(`${url}/health/ready`)).status).toBe(200);
    expect(await kept.stop('SIGTERM', 10_000)).toBe(0);
  });

  test('a second signal ends the waiting', async () => {
    const server = await wire.start({ SHUTDOWN_TIMEOUT: '1800', DRAIN_WINDOW: '1800' });
    const socket = await wire.subscriber(server, 'a');
    process.kill(server.pid, 'SIGTERM');
    const { deadline } = await socket.next('drain');
    expect(deadline! - Date.now()).toBeGreaterThan(1_700_000);
    // Signals within half a second are one.
    await until(
      async () => (await sample(server, 'sobranie_shutdown_duration_seconds')) > 0.6,
      'half a second has passed',
    );
    process.kill(server.pid, 'SIGTERM');
    expect((await socket.closed).code).toBe(1001);
    expect(await server.waitForExit(5_000)).toBe(0);
  });

  test('signals that arrive together are one', async () => {
    const server = await wire.start({ SHUTDOWN_TIMEOUT: '1800', DRAIN_WINDOW: '1800' });
    const socket = await wire.subscriber(server, 'a');
    process.kill(server.pid, 'SIGINT');
    await socket.next('drain');
    process.kill(server.pid, 'SIGTERM');
    process.kill(server.pid, 'SIGINT');
    await until(
      async () => (await sample(server, 'sobranie_shutdown_duration_seconds')) > 0.8,
      'they had time to work',
    );
    expect(await socket.request({ type: 'ping' })).toMatchObject({ type: 'pong' });
    await draining(server);
    await socket.close();
    expect(await server.waitForExit(5_000)).toBe(0);
  });
});
