// Presence through the core, on one node and on several that share a store: who is told what, and when.
import { expect, test } from 'bun:test';
import type { Identity } from '../../../src/core/access.ts';
import type { PresenceChangeFrame, PresenceFrame } from '../../../src/protocol/frames.ts';
import { MemoryMembers } from '../../../src/sync/memory/presence.ts';
import {
  createHub,
  HandClock,
  idle,
  type Connected,
  type HubHarness,
  type HubHarnessOptions,
} from '../../support/hub.ts';

const ann: Identity = { user: 'ann' };
const bob: Identity = { user: 'bob' };
const channel = 'room:1';
const graceMs = 5_000;

/** What a connection was told about presence, shortly. */
function story({ outlet }: Connected): string[] {
  return outlet.told.flatMap((told) => {
    if (told.kind !== 'frame') return [];
    const {
      type,
      member,
      left,
      count,
      members = [],
    } = told.frame as { type: string } & Partial<Omit<PresenceFrame, 'type'> & Omit<PresenceChangeFrame, 'type'>>;
    if (count !== undefined) return [`presence ${count}: ${members.map(({ user }) => user).join(' ')}`];
    if (member === undefined) return [];
    const gone = left === undefined ? '' : ' -1';
    return [`${type} ${member.user ?? 'nobody'} ${JSON.stringify(member.data)}${gone}`];
  });
}

async function enter(hub: HubHarness, identity: Identity, data: unknown = true): Promise<Connected> {
  const connected = hub.connect('websocket', identity);
  await connected.send({ type: 'subscribe', channel, presence: data });
  expect(connected.outlet.states()).toHaveLength(1);
  return connected;
}

/** Time passes, and what it brings about happens. */
async function pass(clock: HandClock, milliseconds: number): Promise<void> {
  for (let passed = 0; passed < milliseconds; passed += 500) {
    clock.advance(Math.min(500, milliseconds - passed));
    await idle();
  }
}

function createNodes(count: number, options: HubHarnessOptions = {}): { clock: HandClock; hubs: HubHarness[] } {
  const clock = new HandClock();
  const members = new MemoryMembers(clock);
  const hubs = Array.from({ length: count }, (_, index) =>
    createHub({ clock, members, incarnation: `n${index + 1}`, ...options }),
  );
  return { clock, hubs };
}

test('the first connection of a user joins, the last one leaves, and the list has them all', async () => {
  const { clock, hubs } = createNodes(2);
  const [here, there] = hubs as [HubHarness, HubHarness];
  const watcher = await enter(here, bob, { mood: 'calm' });
  const tabs = [
    await enter(here, ann, { tab: 1 }),
    await enter(there, ann, { tab: 2 }),
    await enter(here, ann, { tab: 3 }),
  ];
  expect(story(watcher)).toEqual(['join ann {"tab":1}', 'update ann {"tab":2}', 'update ann {"tab":3}']);
  await watcher.send({ type: 'presence', channel, id: 7 });
  const [list] = watcher.outlet.frames('presence');
  expect(list).toMatchObject({ id: 7, channel, count: 4 });
  const members = list?.['members'] as { connection: string }[] | undefined;
  expect(members?.map(({ connection }) => connection)).toEqual([watcher, ...tabs].map(({ session }) => session.id));

  watcher.outlet.told.length = 0;
  for (const tab of tabs) await tab.send({ type: 'unsubscribe', channel });
  expect(story(watcher)).toEqual(['update ann {"tab":2} -1', 'update ann {"tab":3} -1', 'leave ann {"tab":3}']);
  await pass(clock, 20_000);
  expect(story(watcher)).toHaveLength(3);
});

test('versions rise by one with each push, and go on where a list ends', async () => {
  const { hubs } = createNodes(1);
  const [hub] = hubs as [HubHarness];
  const watcher = await enter(hub, bob);
  await enter(hub, ann);
  await watcher.send({ type: 'presence', channel });
  const later = await enter(hub, { user: 'cyd' });
  await later.send({ type: 'unsubscribe', channel });
  const versions = watcher.outlet.told.flatMap((told) => (told.kind === 'frame' ? [told.frame['version']] : []));
  expect(versions).toEqual([2, 2, 3, 4]);
});

test('one that subscribes again when the channel has grown hears each change once, and none after it left', async () => {
  const { hubs } = createNodes(1);
  const [hub] = hubs as [HubHarness];
  const watcher = await enter(hub, bob);
  for (let count = 0; count < 100; count++) await enter(hub, { user: `user${count}` });
  watcher.outlet.told.length = 0;
  await watcher.send({ type: 'subscribe', channel, presence: true });
  await enter(hub, ann);
  expect(story(watcher)).toEqual(['join ann null']);
  await watcher.send({ type: 'unsubscribe', channel });
  await enter(hub, { user: 'cyd' });
  expect(story(watcher)).toEqual(['join ann null']);
});

test('who comes back within the grace neither leaves nor joins, on this node or on another', async () => {
  const { clock, hubs } = createNodes(2);
  const [here, there] = hubs as [HubHarness, HubHarness];
  const watcher = await enter(there, bob);
  const first = await enter(here, ann);
  first.outlet.cut();
  await pass(clock, graceMs - 1_000);
  const second = await enter(there, ann);
  second.outlet.cut();
  await pass(clock, graceMs - 1_000);
  await enter(here, ann);
  await pass(clock, 3 * graceMs);
  expect(story(watcher)).toEqual(['join ann null', 'update ann null -1', 'update ann null -1']);
  await watcher.send({ type: 'presence', channel });
  expect(story(watcher).at(-1)).toBe('presence 2: bob ann');
});

test('who does not come back leaves when the grace is over, and not before', async () => {
  const { clock, hubs } = createNodes(1);
  const [hub] = hubs as [HubHarness];
  const watcher = await enter(hub, bob);
  (await enter(hub, ann)).outlet.cut();
  await pass(clock, graceMs - 500);
  expect(story(watcher)).toEqual(['join ann null']);
  await pass(clock, 1_000);
  expect(story(watcher)).toEqual(['join ann null', 'leave ann null']);
});

// The grace of an earlier leave ended the one that followed: who came back within it was heard to leave and to join.
test('who leaves again and again has the whole grace each time', async () => {
  const { clock, hubs } = createNodes(1);
  const [here] = hubs as [HubHarness];
  const watcher = await enter(here, bob);
  const fidget = here.connect('websocket', ann);
  // Some leaves are told at once. Later ones are not, as long as she is away for two seconds each time.
  for (let round = 0; round < 14; round++) {
    await fidget.send({ type: 'subscribe', channel, presence: true });
    if (round < 12) await pass(clock, 1_500);
    await fidget.send({ type: 'unsubscribe', channel });
    if (round < 12) await pass(clock, 2_000);
  }
  const told = story(watcher).filter((line) => line.startsWith('leave'));
  expect(told).toHaveLength(6);
  await pass(clock, graceMs - 500);
  expect(story(watcher).filter((line) => line.startsWith('leave'))).toHaveLength(6);
  await pass(clock, 500);
  expect(story(watcher).at(-1)).toBe('leave ann null');
});

test('connections without a user are one each, and leave at once', async () => {
  const { hubs } = createNodes(1);
  const [hub] = hubs as [HubHarness];
  const watcher = await enter(hub, bob);
  const nobodies = [await enter(hub, { user: null }), await enter(hub, { user: null })];
  for (const { outlet } of nobodies) outlet.cut();
  await idle();
  expect(story(watcher)).toEqual(['join nobody null', 'join nobody null', 'leave nobody null', 'leave nobody null']);
});

test('data is replaced by the presence command, which answers with the list', async () => {
  const { hubs } = createNodes(1);
  const [hub] = hubs as [HubHarness];
  const watcher = await enter(hub, bob);
  const member = await enter(hub, ann, { is: 'typing' });
  await member.send({ type: 'presence', channel, data: { is: 'idle' }, limit: 1 });
  await member.send({ type: 'presence', channel, data: { is: 'idle' }, limit: 0 });
  expect(story(watcher)).toEqual(['join ann {"is":"typing"}', 'update ann {"is":"idle"}']);
  expect(story(member)).toEqual(['update ann {"is":"idle"}', 'presence 2: bob', 'presence 2: ']);
});

test('the members of a node that died leave once, when its sign of life is late; those of one that ends, at its end', async () => {
  const { clock, hubs } = createNodes(3);
  const [here, dies, ends] = hubs as [HubHarness, HubHarness, HubHarness];
  const watcher = await enter(here, bob);
  await enter(dies, ann);
  await enter(ends, { user: 'cyd' });
  const mover = await enter(ends, { user: 'dan' });
  await pass(clock, 1_000);
  dies.store.state = 'killed';
  mover.outlet.cut();
  await ends.presence.close();
  await enter(here, { user: 'dan' });
  await pass(clock, graceMs + 1_000);
  expect(story(watcher).slice(3)).toEqual(['update dan null -1', 'leave cyd null']);
  await pass(clock, 20_000);
  expect(story(watcher).slice(5)).toEqual(['leave ann null']);
});

test('a list that nobody needs any more is not watched any more', async () => {
  const { clock, hubs } = createNodes(1);
  const [hub] = hubs as [HubHarness];
  const left: string[] = [];
  const unwatch = hub.store.unwatch.bind(hub.store);
  hub.store.unwatch = (name) => {
    left.push(name);
    unwatch(name);
  };
  await hub.presence.list(channel, 10);
  const member = await enter(hub, bob);
  await pass(clock, 30_000);
  expect(left).toEqual([]);
  await member.send({ type: 'unsubscribe', channel });
  await pass(clock, 30_000);
  expect(left).toEqual([channel]);
});
