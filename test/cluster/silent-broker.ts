// A broker that stands still, with its connections open and publications in flight, as a machine does that swaps or whose
// disk hangs: everybody who publishes is answered in time, health says what is the matter, and nothing has to be started
// again.

import { expect } from 'bun:test';
import { WebSocketClient } from '../support/clients.ts';
import { becomesReady, becomesUnready } from '../support/nodes.ts';
import type { RedisPlace, RedisStage } from '../support/redis-stage.ts';
import { until } from '../support/tcp-client.ts';

export interface SilentBroker extends RedisPlace {
  /** SIGSTOP: connections stand, and nobody answers. */
  pause(): void;
  resume(): void;
}

const long = process.env['LONG'] === '1';
/** At the least: as long as it takes to notice. */
const silentMs = long ? 30_000 : 0;

/** `isLogged`: publications are stored elsewhere, and arrive meanwhile. */
export async function standsStill<Server extends SilentBroker>(
  stage: RedisStage<Server>,
  isLogged: boolean,
): Promise<void> {
  const { nodes, redis } = stage;
  // Each that is not answered within ten seconds, or with what is no reason to retry, is a fault of the load.
  const load = await stage.load({ publishers: 6, pauseMs: 5 });
  const [one, two] = await Promise.all(nodes.slice(0, 2).map((node) => WebSocketClient.open(node.url)));
  if (one === undefined || two === undefined) throw new Error('there are not two nodes');
  const channel = 'ephemeral:still';
  for (const socket of [one, two]) await socket.request({ type: 'subscribe', channel }, 20_000);
  redis.pause();
  const pausedAt = performance.now();
  await Promise.all(nodes.map((node) => becomesUnready(node, 60_000)));
  for (const { url } of nodes) {
    const said = async (): Promise<string | undefined> => {
      const { checks } = (await (await fetch(`${url}/health/ready`)).json()) as {
        checks: Record<string, { lastError?: { message: string } }>;
      };
      return checks['sync']?.lastError?.message;
    };
    const isSaid = async (): Promise<boolean> => /no answer|no connection|was lost/.test((await said()) ?? '');
    await until(isSaid, 'health says why', 20_000, 50);
  }
  // Its sender's own node has it at once; the other one where there is another way.
  const answer = await one.request({ type: 'publish', channel, data: 'meanwhile' }, 10_000);
  expect(answer.type).toBe('published');
  if (isLogged) {
    expect((await two.next('message', 20_000)).data).toBe('meanwhile');
    await load.arrives(40, 60_000);
  } else await until(() => load.unavailable > 0, 'a publication was answered unavailable', 20_000);
  await until(() => performance.now() - pausedAt >= silentMs, 'it was silent for long', silentMs + 10_000, 100);
  redis.resume();
  await Promise.all(nodes.map((node) => becomesReady(node, 60_000)));
  await load.arrives(40, 60_000);
  await load.finish({ timeoutMs: 60_000 });
  if (long) process.stdout.write(`the slowest answer took ${Math.round(load.slowestAnswerMs)} ms\n`);
  await Promise.all([one.close(), two.close()]);
}
