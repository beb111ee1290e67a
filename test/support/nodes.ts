// Several nodes of one cluster, and what every one of them must go on doing while what they share is away.

import { expect } from 'bun:test';
import { WebSocketClient } from './clients.ts';
import { startServer, type Environment, type RunningServer } from './process.ts';
import { until } from './tcp-client.ts';

const quiet = {
  RATE_LIMIT_PER_MINUTE: '0',
  SUBSCRIBES_PER_MINUTE: '0',
  BROADCAST_INTERVAL: '0',
  SHUTDOWN_TIMEOUT: '0',
  LOG_FORMAT: 'json',
};

export function startNode(settings: Environment, timeoutMs?: number): Promise<RunningServer> {
  return startServer({ ...quiet, ...settings }, timeoutMs);
}

/** Named `node-1`, `node-2` …; those that came up are ended with the tests if one does not. */
export function startNodes(count: number, settings: (index: number) => Environment): Promise<RunningServer[]> {
  const all = Array.from({ length: count }, (_, index) => {
    return startNode({ NODE_ID: `node-${index + 1}`, ...settings(index) });
  });
  return Promise.all(all);
}

/** Ends them; none may have met an error that nobody handled. */
export async function stopNodes(nodes: readonly RunningServer[]): Promise<void> {
  await Promise.all(nodes.map((node) => node.stop()));
  for (const node of nodes) {
    const unhandled = /^.*(?:was not handled|was not caught|failed unexpectedly|"level":"fatal").*$/m.exec(
      node.stdout(),
    );
    expect(unhandled?.[0]).toBeUndefined();
  }
}

async function statusOf(node: RunningServer, path: string): Promise<number> {
  const response = await fetch(node.url + path, { signal: AbortSignal.timeout(10_000) });
  await response.text();
  return response.status;
}

/** One that has no time to answer, or was not there yet, is asked again. */
export async function becomesReady(node: RunningServer, timeoutMs = 20_000): Promise<void> {
  let last: unknown;
  const isReady = async (): Promise<boolean> => {
    last = await statusOf(node, '/health/ready').catch(String);
    return last === 200;
  };
  await until(isReady, () => `${node.url} is ready; it answered ${String(last)}`, timeoutMs, 50);
}

/** It lives, says that it is not ready, and stays so while the tests look. */
export async function becomesUnready(node: RunningServer, timeoutMs = 20_000): Promise<void> {
  await until(async () => (await statusOf(node, '/health/ready')) === 503, `${node.url} is unready`, timeoutMs, 50);
  expect(await statusOf(node, '/health/live')).toBe(200);
}

/**
 * While the sync layer is away: neighbours on the node hear each other, and a publication is refused in time. Where it
 * is only partly away a new connection may still get through, and a publication with it: answered it is, either way.
 */
export async function servesAlone(node: RunningServer, partly = false): Promise<void> {
  const [listener, speaker] = await Promise.all([WebSocketClient.open(node.url), WebSocketClient.open(node.url)]);
  try {
    const channel = 'ephemeral:alone';
    const joined = await listener.request({ type: 'subscribe', channel });
    expect(joined.type).toBe('subscribed');
    speaker.send({ type: 'publish', channel, data: 'still here' });
    expect((await listener.next('message')).data).toBe('still here');

    const startedAt = performance.now();
    const refusal = await speaker.request({ type: 'publish', channel: 'room:away', data: 1 }, 10_000);
    if (!partly || refusal.type !== 'published') {
      expect(refusal).toMatchObject({ type: 'error', code: 'unavailable', retryable: true });
    }
    // A second, and what a busy machine adds.
    expect(performance.now() - startedAt).toBeLessThan(3_000);
  } finally {
    await Promise.all([listener.cut(), speaker.cut()]);
  }
}
