// Leaving: a server that was asked to end tells its clients, serves them until they go, and ends in time.

import { expect, test } from 'bun:test';
import { EventClient, Refused } from '../support/clients.ts';
import type { RunningServer } from '../support/process.ts';
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

  test('clients are told, each its own moment, served on, and missed by nobody when they have left', async () => {
    const server = await wire.start({ SHUTDOWN_TIMEOUT: '30' });
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
    const server = await wire.start({ SHUTDOWN_TIMEOUT: '1' });
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

  test('a second signal ends the waiting', async () => {
    const server = await wire.start({ SHUTDOWN_TIMEOUT: '1800' });
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
    const server = await wire.start({ SHUTDOWN_TIMEOUT: '1800' });
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
