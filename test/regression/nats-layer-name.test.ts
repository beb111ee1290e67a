// NATS was named by its prefix alone: a node that was led to another NATS joined, and heard nothing of the others. The name
// that NATS keeps now may be lost with its streams; then the log of the database decides between two names.

import { afterAll, expect, test } from 'bun:test';
import { NatsLayerName } from '../../src/sync/nats/layer-name.ts';
import { NatsNames } from '../../src/sync/nats/names.ts';
import { parseNatsUrl } from '../../src/nats/target.ts';
import { systemClock } from '../../src/time/clock.ts';
import { deaf, natsAdapter } from '../support/nats-harness.ts';
import { startNats, type TestNats } from '../support/nats.ts';
import { patient } from '../support/patience.ts';

patient();

const closers: (() => Promise<unknown>)[] = [];
afterAll(async () => {
  for (const close of closers.reverse()) await close();
}, 60_000);

/** Answers a maker of names: each is that of another node. */
async function nodesOf({ url }: TestNats): Promise<() => NatsLayerName> {
  const names = new NatsNames('named');
  const adapter = natsAdapter(parseNatsUrl(url), names);
  await adapter.start(deaf);
  closers.push(() => adapter.close());
  return () => new NatsLayerName({ client: () => adapter.client, names, clock: systemClock });
}

test('all nodes of one NATS have its name, and those of another another one', async () => {
  const [nats, other] = await Promise.all([startNats(), startNats()]);
  closers.push(() => nats.close());
  closers.push(() => other.close());
  const [node, stranger] = await Promise.all([nodesOf(nats), nodesOf(other)]);
  const told = await node().confirm(null);
  const all = await Promise.all(Array.from({ length: 8 }, () => node().confirm(told)));
  expect(new Set(all)).toEqual(new Set([told]));
  const far = stranger();
  expect(await far.confirm(told)).not.toBe(told);
  expect(await far.confirm(told)).toBe(far.current);
});

test('nodes that start at once agree on the name of the first', async () => {
  const nats = await startNats();
  closers.push(() => nats.close());
  const node = await nodesOf(nats);
  const all = await Promise.all(Array.from({ length: 20 }, () => node().confirm(undefined)));
  expect(new Set(all).size).toBe(1);
});

test('between two names that one NATS was given, the log of the database decides', async () => {
  const nats = await startNats();
  closers.push(() => nats.close());
  const node = await nodesOf(nats);
  const [old, newcomer, third] = [node(), node(), node()];
  const told = await old.confirm(undefined);
  await nats.replace();
  await nats.start();
  const later = await (await nodesOf(nats))().confirm(told);
  expect(later).not.toBe(told);
  // Nobody took the lead: the name of those that run comes back, and the newcomers take it.
  await confirmed(old, told);
  expect(await old.confirm(told)).toBe(told);
  expect(await newcomer.confirm(told)).toBe(told);
  // A newcomer took the lead, as no relay of the old name did: then that name is the true one.
  await nats.replace();
  await nats.start();
  await confirmed(third, undefined);
  expect(third.current).not.toBe(told);
  expect(await old.confirm(third.current)).toBe(third.current);
}, 60_000);

/** Its connection may not have come back yet. */
async function confirmed(name: NatsLayerName, told: string | undefined): Promise<string> {
  for (const deadline = performance.now() + 30_000; ;) {
    try {
      return await name.confirm(told);
    } catch (error) {
      if (performance.now() > deadline) throw error;
      await Bun.sleep(50);
    }
  }
}
