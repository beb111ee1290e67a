// The example client over WebSocket: what it does when the server closes with 1008 depends on the reason. It used to
// give up on each of them, also where only its token had expired.

import { afterAll, beforeAll, expect, test } from 'bun:test';
import { join } from 'node:path';
import { patient } from '../support/patience.ts';
import { spawnScript, startServer, type RunningServer } from '../support/process.ts';
import { nowSeconds, secret, tokenOf } from '../support/tokens.ts';

patient();

const script = join(import.meta.dir, '../../examples/client-websocket.ts');
const apiKey = 'the-key-of-the-backend-0123456789';

let server: RunningServer;

beforeAll(async () => {
  server = await startServer({ SYNC: 'memory', JWT_SECRET: secret, API_KEY: apiKey, SUBSCRIBES_PER_MINUTE: '20' });
});

afterAll(() => server?.kill9());

/** The application's backend, which answers these tokens one after another, and the last one from then on. */
function backendOf(...tokens: string[]): Bun.Server<undefined> & AsyncDisposable {
  const left = [...tokens];
  const answer = (): Response => new Response(left.length > 1 ? left.shift() : left[0]);
  const backend = Bun.serve({ port: 0, hostname: '127.0.0.1', fetch: answer });
  return Object.assign(backend, { [Symbol.asyncDispose]: () => backend.stop(true) });
}

function follow(...more: string[]): ReturnType<typeof spawnScript> {
  return spawnScript(script, {}, ['news', `${server.url.replace('http', 'ws')}/realtime/ws`, ...more]);
}

const claims = { sub: 'ann', channels: { '*': ['subscribe'] } };

test('after token_expired it comes back with a fresh token', async () => {
  const tokens = await Promise.all([tokenOf(claims, nowSeconds() - 60), tokenOf(claims)]);
  await using backend = backendOf(...tokens);
  const client = follow(backend.url.href);
  await client.waitForOutput(/closed with 1008 token_expired; again in/);
  await client.waitForOutput(/subscribed to news/);
  await client.kill9();
});

test('with a bad token, without one, and without a way to a fresh one it ends', async () => {
  await using backend = backendOf('no-token');
  for (const client of [follow(backend.url.href), follow()]) {
    expect(await client.waitForExit()).toBe(1);
    expect(client.stderr()).toContain('closed with 1008 unauthorized: another attempt would end the same way');
  }
  const url = `${server.url.replace('http', 'ws')}/realtime/ws?token=${await tokenOf(claims, nowSeconds() - 60)}`;
  const client = spawnScript(script, {}, ['news', url]);
  expect(await client.waitForExit()).toBe(1);
  expect(client.stderr()).toContain('token_expired');
});

test('when it has no backend to ask for a token, it goes on trying', async () => {
  const backend = Bun.serve({ port: 0, hostname: '127.0.0.1', fetch: () => new Response('', { status: 503 }) });
  const client = follow(backend.url.href);
  await client.waitForOutput(/answered 503; again in/);
  const { port } = backend;
  await backend.stop(true);
  const token = await tokenOf(claims);
  const mended = Bun.serve({ port: Number(port), hostname: '127.0.0.1', fetch: () => new Response(token) });
  await client.waitForOutput(/subscribed to news/, 20_000);
  await client.kill9();
  await mended.stop(true);
});

test('after rate_limited it waits for the next minute', async () => {
  // Ten times the limit in refused channels closes every connection of the user.
  await using backend = backendOf(await tokenOf({ ...claims, sub: 'greedy' }));
  const socket = new WebSocket(
    `${server.url.replace('http', 'ws')}/realtime/ws?token=${await (await fetch(backend.url)).text()}`,
  );
  const closed = Promise.withResolvers<string>();
  socket.onopen = () => {
    for (let count = 0; count < 400; count++) socket.send('{"type":"subscribe","channel":"news"}');
  };
  socket.onclose = ({ code, reason }) => closed.resolve(`${code} ${reason}`);
  expect(await closed.promise).toBe('1008 rate_limited');
  const client = follow(backend.url.href);
  const [, waitMs] = await client.waitForOutput(/closed with 1008 rate_limited; again in (\d+) ms/);
  expect(Number(waitMs)).toBeGreaterThanOrEqual(60_000);
  await client.kill9();
});
