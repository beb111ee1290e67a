// Nodes by hand-turned time: who is taken for dead and when, who is not, and what several of them tell together. The
// sync layer is a log in memory that several hubs share, so that deafness and silence can be had at will.

import { afterEach, describe, expect, test } from 'bun:test';
import type { Failures } from '../../src/core/failures.ts';
import type { Hub } from '../../src/core/hub.ts';
import type { ChannelRule, Rules } from '../../src/rules/rules.ts';
import { Publication } from '../../src/core/publication.ts';
import type { MaybePromise } from '../../src/core/maybe-promise.ts';
import type {
  Appended,
  HistoryPage,
  HistoryQuery,
  Outgoing,
  SyncAdapter,
  SyncEvents,
} from '../../src/core/sync-adapter.ts';
import { seriesOf } from '../../src/core/rates.ts';
import { RealtimeError } from '../../src/protocol/realtime-error.ts';
import type { Position } from '../../src/protocol/position.ts';
import {
  decodeControl,
  encodeControl,
  isForAnother,
  type Answer,
  type Beat,
  type ControlMessage,
} from '../../src/nodes/control-message.ts';
import { Announcements } from '../../src/nodes/announcements.ts';
import { channelsAnsweredMax, type Self } from '../../src/nodes/answers.ts';
import { NodeIdTaken, Nodes } from '../../src/nodes/nodes.ts';
import { Inquiries } from '../../src/nodes/inquiry.ts';
import { Peers, type Peer } from '../../src/nodes/peers.ts';
import { silentMsMax } from '../../src/nodes/silence.ts';
import { WholeCluster } from '../../src/nodes/whole-cluster.ts';
import type { MemoryAdapter } from '../../src/sync/memory/adapter.ts';
import { createHub, HandClock, idle, memoryAdapter, type HubHarness } from '../support/hub.ts';
import { unlimited } from '../support/doubles.ts';

/** One node's end of the shared layer. */
class SharedEnd implements SyncAdapter {
  readonly name = 'memory';
  readonly traits = { shared: true, durable: false };
  readonly #layer: SharedLayer;
  events: SyncEvents | undefined;
  /** Hears nothing, and does not know it. */
  deaf = false;
  /** Cannot send either. */
  away = false;
  /** What happens while a probe is on its way. */
  whileProbing: () => void = () => undefined;

  constructor(layer: SharedLayer) {
    this.#layer = layer;
  }

  start(events: SyncEvents): Promise<void> {
    this.events = events;
    return Promise.resolve();
  }

  publish(outgoing: Outgoing): MaybePromise<Appended | undefined> {
    if (this.away) throw new RealtimeError('unavailable');
    return this.#layer.publish(outgoing, this);
  }

  subscribe(channel: string, rule: ChannelRule): MaybePromise<Position | undefined> {
    return this.#layer.log.subscribe(channel, rule);
  }

  unsubscribe(): void {
    // Others may be subscribed.
  }

  history(channel: string, rule: ChannelRule, query: HistoryQuery): MaybePromise<HistoryPage> {
    return this.#layer.log.history(channel, rule, query);
  }

  health(): { up: boolean } {
    return { up: !this.away };
  }

  probe(): Promise<void> {
    this.whileProbing();
    return this.deaf || this.away ? Promise.reject(new Error('nothing came back')) : Promise.resolve();
  }

  close(): Promise<void> {
    this.events = undefined;
    return Promise.resolve();
  }
}

class SharedLayer {
  readonly log: MemoryAdapter;
  /** Each message comes twice. */
  repeats = false;
  readonly #ends: SharedEnd[] = [];

  constructor(clock: HandClock) {
    this.log = memoryAdapter(clock);
    const everyone = (tell: (events: SyncEvents) => void): void => this.#tell(this.#ends, tell);
    void this.log.start({
      publication: (publication) => everyone((events) => events.publication(publication)),
      head: (channel, head) => everyone((events) => events.head(channel, head)),
      settled: () => undefined,
    });
  }

  end(): SharedEnd {
    const end = new SharedEnd(this);
    this.#ends.push(end);
    return end;
  }

  publish(outgoing: Outgoing, sender: SharedEnd): MaybePromise<Appended | undefined> {
    if (outgoing.rule.recoverable) return this.log.publish(outgoing);
    const publication = new Publication({ ...outgoing, offset: 0, epoch: '' });
    this.#tell(
      this.#ends.filter((end) => end !== sender),
      (events) => events.publication(publication),
    );
    return undefined;
  }

  #tell(ends: readonly SharedEnd[], tell: (events: SyncEvents) => void): void {
    for (const end of ends) {
      if (end.events === undefined || end.deaf || end.away) continue;
      tell(end.events);
      if (this.repeats) tell(end.events);
    }
  }
}

interface TestNode extends HubHarness {
  readonly nodes: Nodes;
  readonly end: SharedEnd;
  readonly said: string[];
  /** How often it was asked to drain. */
  readonly drains: () => number;
}

class TestCluster {
  readonly clock = new HandClock();
  readonly layer = new SharedLayer(this.clock);
  readonly all: TestNode[] = [];
  #count = 0;

  create(
    nodeId: string,
    { named = false, rules = [{ channels: '*' }] as { channels: string; recoverable?: boolean }[] } = {},
  ): TestNode {
    const end = this.layer.end();
    const harness = createHub({
      clock: this.clock,
      adapter: end,
      rules,
      limits: { nodeId, channelsPerConnectionMax: 1e6 },
    });
    const said: string[] = [];
    let drained = 0;
    const incarnation = `incarnation${++this.#count}`;
    const nodes = new Nodes({
      ...harness,
      limits: unlimited,
      nodeId,
      incarnation,
      named,
      rates: (after) => ({ from: after + 1, series: seriesOf((name) => (name === 'connections' ? [3, 4] : [1, 0.5])) }),
      drain: () => drained++,
      log: (message) => said.push(message),
    });
    const node = { ...harness, nodes, end, said, drains: () => drained };
    this.all.push(node);
    return node;
  }

  async start(...nodeIds: string[]): Promise<TestNode[]> {
    const started = nodeIds.map((nodeId) => this.create(nodeId));
    for (const { nodes } of started) await nodes.start();
    await this.pass(1_000);
    return started;
  }

  /** Second by second, each node ticking; those in `frozen` do nothing. */
  async pass(milliseconds: number, frozen: readonly TestNode[] = []): Promise<void> {
    for (let passed = 0; passed < milliseconds; passed += 1_000) {
      this.clock.advance(1_000);
      for (const node of this.all) if (!frozen.includes(node)) await node.nodes.tick();
      await idle();
    }
  }

  /** What `$nodes` holds. */
  async changes(): Promise<string[]> {
    const page = await this.layer.log.history('$nodes', this.all[0]!.rules.for('$nodes'), { limit: 1_000 });
    return page.publications.map(({ data }) => {
      const { event, node, nodes } = JSON.parse(data) as { event: string; node: string; nodes: { node: string }[] };
      return `${event} ${node}: ${nodes.map((each) => each.node).join(' ')}`;
    });
  }
}

const names = ({ nodes }: TestNode): string[] => nodes.nodes.map(({ node }) => node);

describe('Nodes', () => {
  let cluster = new TestCluster();
  afterEach(async () => {
    for (const { nodes } of cluster.all) await nodes.close();
    cluster = new TestCluster();
  });

  test('know each other, and tell each coming and each leaving once', async () => {
    const [a, b] = await cluster.start('a', 'b');
    const [c] = await cluster.start('c');
    for (const node of [a!, b!, c!]) expect(names(node)).toEqual(['a', 'b', 'c']);
    await b!.nodes.close();
    expect(names(a!)).toEqual(['a', 'c']);
    expect(await cluster.changes()).toEqual(['up a: a b', 'up b: a b', 'up c: a b c', 'down b: a c']);
  });

  test('take a silent one for dead after a while, and tell it once', async () => {
    const [a, b, c] = await cluster.start('a', 'b', 'c');
    await cluster.pass(silentMsMax - 2_000, [c!]);
    expect(names(a!)).toEqual(['a', 'b', 'c']);
    await cluster.pass(5_000, [c!]);
    expect(names(a!)).toEqual(['a', 'b']);
    expect(names(b!)).toEqual(['a', 'b']);
    expect((await cluster.changes()).slice(3)).toEqual(['down c: a b']);
  });

  test('bring back one that was only held up', async () => {
    const [a, , c] = await cluster.start('a', 'b', 'c');
    await cluster.pass(15_000, [c!]);
    await cluster.pass(5_000);
    expect(names(a!)).toEqual(['a', 'b', 'c']);
    // It has heard none of them meanwhile, and blames itself.
    expect(names(c!)).toEqual(['a', 'b', 'c']);
    expect((await cluster.changes()).slice(3)).toEqual(['down c: a b', 'up c: a b c']);
    await cluster.pass(15_000, [c!]);
    await cluster.pass(5_000);
    expect((await cluster.changes()).slice(5)).toEqual(['down c: a b', 'up c: a b c']);
  });

  // A node that had proved for another one's sake that it hears, and was then stopped, took that proof for one of now:
  // everybody whose beats it had missed meanwhile was dead to it.
  test('one that was stopped while it watched another takes nobody for dead that lives', async () => {
    const [a, b, c] = await cluster.start('a', 'b', 'c');
    await cluster.pass(6_000, [c!]);
    a!.end.deaf = true;
    await cluster.pass(12_000, [a!, c!]);
    a!.end.deaf = false;
    await cluster.pass(1_000, [b!, c!]);
    expect(names(a!)).toContain('b');
    await cluster.pass(15_000, [c!]);
    for (const node of [a!, b!]) expect(names(node)).toEqual(['a', 'b']);
    expect(await cluster.changes()).not.toContain('down b: a');
  });

  test('one that is stopped while its probe is on its way takes nobody for dead', async () => {
    const [a, b, c] = await cluster.start('a', 'b', 'c');
    await cluster.pass(6_000, [c!]);
    a!.end.whileProbing = () => cluster.clock.advance(12_000);
    await cluster.pass(1_000, [b!, c!]);
    expect(names(a!)).toEqual(['a', 'b', 'c']);
    a!.end.whileProbing = () => undefined;
    await cluster.pass(15_000, [c!]);
    for (const node of [a!, b!]) expect(names(node)).toEqual(['a', 'b']);
    expect((await cluster.changes()).filter((change) => change.startsWith('down'))).toEqual(['down c: a b']);
  });

  const faults = [1, 5, 10, 11, 12, 13, 17, 30].flatMap((seconds) => [
    ['deaf', seconds] as const,
    ['away', seconds] as const,
  ]);
  test.each(faults)('one that is %s for %i s takes nobody for dead', async (fault, seconds) => {
    const [a, b] = await cluster.start('a', 'b');
    a!.end[fault] = true;
    await cluster.pass(seconds * 1_000);
    expect(names(a!)).toEqual(['a', 'b']);
    a!.end[fault] = false;
    await cluster.pass(5_000);
    for (const node of [a!, b!]) expect(names(node)).toEqual(['a', 'b']);
    const later = (await cluster.changes()).slice(2);
    // One that could not speak was taken for dead, and came up again; one that could not hear was not.
    const isMissed = fault === 'away' && seconds > 5;
    expect(later).toEqual(isMissed ? ['down a: b', 'up a: a b'] : []);
  });

  test('tell what happened while the layer was away, when it is back', async () => {
    const [a] = await cluster.start('a');
    const b = cluster.create('b');
    await b.nodes.start();
    b.end.away = true;
    await cluster.pass(3_000);
    expect(await cluster.changes()).toEqual(['up a: a']);
    b.end.away = false;
    await cluster.pass(4_000);
    expect((await cluster.changes()).at(-1)).toBe('up b: a b');
    expect(names(a!)).toEqual(['a', 'b']);
  });

  test('choose one of them where no log takes only the first', async () => {
    const rules = [{ channels: '*', recoverable: false }];
    const [a, b, c] = ['a', 'b', 'c'].map((nodeId) => cluster.create(nodeId, { rules }));
    for (const { nodes } of cluster.all) await nodes.start();
    await cluster.pass(1_000);
    const watcher = b!.connect();
    await watcher.send({ type: 'subscribe', channel: '$nodes' });
    await cluster.pass(15_000, [c!]);
    expect(watcher.outlet.told.filter(({ kind }) => kind === 'message')).toHaveLength(1);
    expect(names(a!)).toEqual(['a', 'b']);
  });

  test('tell their own coming and leaving where no log takes only the first', async () => {
    const rules = [{ channels: '*', recoverable: false }];
    const [a, b] = ['a', 'b'].map((nodeId) => cluster.create(nodeId, { rules }));
    await a!.nodes.start();
    const watcher = a!.connect();
    await watcher.send({ type: 'subscribe', channel: '$nodes' });
    await b!.nodes.start();
    await cluster.pass(1_000);
    await b!.nodes.close();
    const heard = watcher.outlet.told.flatMap((told) => (told.kind === 'message' ? [told.publication.data] : []));
    const changes = heard.map((data) => JSON.parse(data) as { event: string; node: string });
    expect(changes.map(({ event, node }) => `${event} ${node}`)).toEqual(['up a', 'up b', 'down b']);
  });

  test('refuse a name that is taken, also when two begin at once', async () => {
    const [a] = await cluster.start('a');
    const late = cluster.create('a', { named: true });
    await expect(late.nodes.start()).rejects.toBeInstanceOf(NodeIdTaken);
    const pair = [cluster.create('b', { named: true }), cluster.create('b', { named: true })];
    const outcomes = Promise.allSettled(pair.map(({ nodes }) => nodes.start()));
    await idle();
    cluster.clock.advance(1_000);
    expect((await outcomes).map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected']);
    await cluster.pass(1_000);
    expect(names(a!)).toEqual(['a', 'b']);
    expect(a!.said).toEqual([]);
  });

  test('let a name return at once after a death, and say that it is shared when both live', async () => {
    const [a, b] = await cluster.start('a', 'b');
    await cluster.pass(2_000, [b!]);
    b!.end.away = true;
    const again = cluster.create('b', { named: true });
    const started = again.nodes.start();
    await idle();
    cluster.clock.advance(1_000);
    await started;
    await cluster.pass(12_000, [b!]);
    expect(names(a!)).toEqual(['a', 'b']);
    expect((await cluster.changes()).slice(2).sort()).toEqual(['down b: a b', 'up b: a b']);
    expect(again.said).toEqual([]);
    await cluster.start('b');
    expect(again.said).toEqual(['another node has the same NODE_ID: give each node a name of its own']);
  });

  test('count channels over all of them, and name one whose answer is cut', async () => {
    const [a, b] = await cluster.start('a', 'b');
    const [here, there] = [a!.connect(), b!.connect()];
    await here.send({ type: 'subscribe', channel: 'both' });
    await there.send({ type: 'subscribe', channel: 'both' });
    expect(await a!.nodes.cluster.channelCounts()).toEqual({
      value: [{ channel: 'both', subscribers: 2 }],
      incomplete: [],
    });
    const other = b!.connect();
    await other.send({ type: 'subscribe', channel: 'both' });
    for (let index = 0; index < channelsAnsweredMax; index++) {
      other.session.receive(JSON.stringify({ type: 'subscribe', channel: `many:${index}` }));
      // They begin in slices, a few in a turn of the event loop.
      if (index % 1_000 === 0) while (other.session.subscriptionCount < index) await idle();
    }
    while (other.session.subscriptionCount <= channelsAnsweredMax) await idle();
    const { value, incomplete } = await a!.nodes.cluster.channelCounts();
    expect(incomplete).toEqual(['b']);
    expect(value).toHaveLength(channelsAnsweredMax);
    expect(value).toContainEqual({ channel: 'both', subscribers: 3 });
  }, 30_000);

  test('tell how busy they all were together, step by step, and who is missing', async () => {
    const [a, , c] = await cluster.start('a', 'b', 'c');
    expect(await a!.nodes.cluster.rates(7)).toMatchObject({
      value: { from: 8, series: { connections: [9, 12], errors: [3, 1.5], delays: [3, 1.5] } },
      incomplete: [],
    });
    c!.end.deaf = true;
    const { value, incomplete } = await a!.nodes.cluster.rates(7);
    expect(value.series.connections).toEqual([6, 8]);
    expect(incomplete).toEqual(['c']);
    a!.end.away = true;
    const alone = await a!.nodes.cluster.rates(7);
    expect([alone.value.series.connections, alone.incomplete]).toEqual([
      [3, 4],
      ['b', 'c'],
    ]);
  });

  test('count each part of an answer once, however often it comes', async () => {
    const [a, b] = await cluster.start('a', 'b');
    const there = b!.connect();
    await there.send({ type: 'subscribe', channel: 'both' });
    cluster.layer.repeats = true;
    expect(await a!.nodes.cluster.subscribers('both')).toEqual({ value: 1, incomplete: [] });
    expect((await a!.nodes.cluster.channelCounts()).value).toEqual([{ channel: 'both', subscribers: 1 }]);
  });

  test('who asks while a count is under way gets one that began later', async () => {
    const [a, b, c] = await cluster.start('a', 'b', 'c');
    c!.end.deaf = true;
    const first = a!.nodes.cluster.channelCounts();
    await idle();
    const there = b!.connect();
    await there.send({ type: 'subscribe', channel: 'late' });
    const later = [a!.nodes.cluster.channelCounts(), a!.nodes.cluster.channelCounts()];
    c!.end.deaf = false;
    expect(await first).toEqual({ value: [], incomplete: ['c'] });
    for (const counts of await Promise.all(later)) {
      expect(counts).toEqual({ value: [{ channel: 'late', subscribers: 1 }], incomplete: [] });
    }
  });

  test('have the one drain that is named, be it another or the one that is asked', async () => {
    const [a, b, c] = await cluster.start('a', 'b', 'c');
    expect(await a!.nodes.cluster.drain('b')).toBe(true);
    expect(await a!.nodes.cluster.drain('a')).toBe(true);
    expect(await a!.nodes.cluster.drain('d')).toBe(false);
    expect([a!, b!, c!].map(({ drains }) => drains())).toEqual([1, 1, 0]);
  });

  test('answer with what they have when the others cannot be asked, but never claim a disconnect', async () => {
    const [a] = await cluster.start('a', 'b');
    const own = a!.connect('websocket', { user: 'ann' });
    await own.send({ type: 'subscribe', channel: 'here' });
    a!.end.away = true;
    expect(await a!.nodes.cluster.channelCounts()).toEqual({
      value: [{ channel: 'here', subscribers: 1 }],
      incomplete: ['b'],
    });
    await expect(a!.nodes.cluster.disconnect('ann')).rejects.toMatchObject({ code: 'unavailable' });
    expect(a!.sessions.size).toBe(0);
  });
});

describe('Peers', () => {
  const beat = (incarnation: string, term = 0, since = 1): Beat => ({
    kind: 'beat',
    node: 'n',
    incarnation,
    term,
    since,
    connections: 0,
  });

  test('one that was removed is heard again in a later term only', () => {
    const peers = new Peers();
    expect(peers.hear(beat('x'), 0)).toBe('new');
    expect(peers.hear(beat('x'), 1)).toBe('known');
    expect(peers.remove('x')?.incarnation).toBe('x');
    expect(peers.remove('x')).toBeUndefined();
    expect(peers.hear(beat('x'), 2)).toBe('gone');
    expect(peers.hear(beat('x', 1), 3)).toBe('new');
  });

  test('what is remembered of the dead is bounded', () => {
    const peers = new Peers();
    for (let index = 0; index < 3_000; index++) {
      peers.hear(beat(`x${index}`), 0);
      peers.remove(`x${index}`);
    }
    expect(peers.hear(beat('x2999'), 0)).toBe('gone');
    expect(peers.hear(beat('x0'), 0)).toBe('new');
  });
});

describe('Inquiries', () => {
  const peer = { node: 'b', incarnation: 'b1', since: 0, term: 0, connections: 0, heardAt: 0 };
  const part = (index: number, of: string, id = 1): Answer => {
    return { kind: 'answer', to: 'a1', id, incarnation: of, part: index, parts: 2, cut: false, count: 1 };
  };
  const create = (peers: Peer[]) =>
    new Inquiries({ incarnation: 'a1', peers: () => peers, tell: () => Promise.resolve() });

  test('end when all parts have come; one that comes twice counts once', async () => {
    const inquiries = create([peer]);
    const taken: number[] = [];
    let ended = false;
    const asked = inquiries.ask({ about: 'channels' }, (answer) => taken.push(answer.part));
    void asked.then(() => (ended = true));
    for (const index of [0, 0, 0]) inquiries.answered(part(index, 'b1'));
    await idle();
    expect([taken, ended]).toEqual([[0], false]);
    inquiries.answered(part(1, 'b1'));
    expect(await asked).toEqual([]);
    expect(taken).toEqual([0, 1]);
    // Too late, and to no question at all.
    inquiries.answered(part(1, 'b1'));
    inquiries.answered(part(1, 'b1', 7));
    expect(taken).toEqual([0, 1]);
  });

  test('name at the deadline who has not answered in full', async () => {
    const other = { ...peer, node: 'c', incarnation: 'c1' };
    const inquiries = create([peer, other]);
    const asked = inquiries.ask({ about: 'channels' }, () => undefined);
    for (const index of [0, 1]) inquiries.answered(part(index, 'b1'));
    inquiries.answered(part(0, 'c1'));
    expect(await asked).toEqual(['c']);
  });

  test('an answer that comes after the deadline is not taken', async () => {
    const inquiries = create([peer]);
    const taken: number[] = [];
    const asked = inquiries.ask({ about: 'channels' }, (answer) => taken.push(answer.part));
    inquiries.answered(part(0, 'b1'));
    expect(await asked).toEqual(['b']);
    inquiries.answered(part(1, 'b1'));
    expect(taken).toEqual([0]);
  });

  test('a question that hangs on its way ends at the deadline too', async () => {
    const never = new Promise<void>(() => undefined);
    const inquiries = new Inquiries({ incarnation: 'a1', peers: () => [peer], tell: () => never });
    expect(await inquiries.ask({ about: 'channels' }, () => undefined)).toEqual(['b']);
  });
});

test('however many ask for the channels of the cluster at once, the nodes are asked twice', async () => {
  const gates: PromiseWithResolvers<string[]>[] = [];
  const ask = (): Promise<string[]> => {
    const gate = Promise.withResolvers<string[]>();
    gates.push(gate);
    return gate.promise;
  };
  const cluster = new WholeCluster({
    self: { hub: { channelCounts: () => [{ channel: 'posts', subscribers: 1 }] } } as unknown as Self,
    failures: undefined as unknown as Failures,
    inquiries: { ask } as unknown as Inquiries,
    peers: () => [],
    node: 'a',
    nodes: () => [],
  });
  const counts = Array.from({ length: 20 }, () => cluster.channelCounts());
  expect(gates).toHaveLength(1);
  gates[0]?.resolve([]);
  await counts[0];
  await idle();
  expect(gates).toHaveLength(2);
  gates[1]?.resolve(['b']);
  // The first may have been asked before the others came, who wait for a newer answer.
  const found = await Promise.all(counts);
  expect(found.map(({ incomplete }) => incomplete.length)).toEqual([0, ...Array<number>(19).fill(1)]);
  const later = cluster.channelCounts();
  expect(gates).toHaveLength(3);
  gates[2]?.resolve([]);
  expect((await later).value).toEqual([{ channel: 'posts', subscribers: 1 }]);
});

test('of changes that wait for the sync layer the newest hundred are published, in order', async () => {
  const published: unknown[] = [];
  let isAway = true;
  const publish = ({ key }: { key: string }): Promise<void> => {
    if (isAway) return Promise.reject(new Error('away'));
    published.push(key);
    return Promise.resolve();
  };
  const announcements = new Announcements({
    hub: { publish } as unknown as Hub,
    rules: { for: () => ({ recoverable: true }) } as unknown as Rules,
    clock: new HandClock(),
    nodes: () => [],
    isChosen: () => true,
    failed: () => undefined,
  });
  for (let index = 0; index < 150; index++) {
    announcements.add({ event: 'down', node: `n${index}`, key: `key ${index}`, isOwn: false });
    await idle();
  }
  expect(await announcements.flush()).toBe(false);
  isAway = false;
  expect(await announcements.flush()).toBe(true);
  expect(published).toEqual(Array.from({ length: 100 }, (_, index) => `key ${index + 50}`));
});

test('a change that is too old while it is published takes no other one with it', async () => {
  const published: unknown[] = [];
  const first = Promise.withResolvers<void>();
  const publish = ({ key }: { key: string }): Promise<void> => {
    published.push(key);
    return published.length === 1 ? first.promise : Promise.resolve();
  };
  const announcements = new Announcements({
    hub: { publish } as unknown as Hub,
    rules: { for: () => ({ recoverable: true }) } as unknown as Rules,
    clock: new HandClock(),
    nodes: () => [],
    isChosen: () => true,
    failed: () => undefined,
  });
  // One more than may wait.
  for (let index = 0; index <= 100; index++) {
    announcements.add({ event: 'down', node: `n${index}`, key: `key ${index}`, isOwn: false });
  }
  first.resolve();
  expect(await announcements.flush()).toBe(true);
  expect(published).toEqual(Array.from({ length: 101 }, (_, index) => `key ${index}`));
});

test('what one of two nodes has delivered is delivered, though the other is silent', async () => {
  const peer = (node: string): Peer => {
    return { node, incarnation: `same${node}`, since: 1, term: 0, connections: 0, heardAt: 0 };
  };
  const cluster = (counts: Readonly<Record<string, number>>): WholeCluster =>
    new WholeCluster({
      self: { users: { deliver: () => false } } as unknown as Self,
      node: 'own',
      nodes: () => [],
      failures: {} as Failures,
      peers: () => [peer('a'), peer('b')],
      inquiries: {
        askOne: ({ node }: Peer, _question: unknown, take: (answer: { count: number }) => void) => {
          const count = counts[node];
          if (count !== undefined) take({ count });
          return Promise.resolve(count === undefined ? [node] : []);
        },
      } as unknown as Inquiries,
    });
  expect(await cluster({ a: 1 }).send('same-connection', undefined, '{}')).toBe(true);
  expect(await cluster({ a: 0, b: 0 }).send('same-connection', undefined, '{}')).toBe(false);
  await expect(cluster({ a: 0 }).send('same-connection', undefined, '{}')).rejects.toMatchObject({
    code: 'unavailable',
  });
});

describe('Control messages', () => {
  const messages: readonly ControlMessage[] = [
    { kind: 'hello', node: 'a', incarnation: 'x' },
    { kind: 'beat', node: 'a', incarnation: 'x', term: 0, since: 1, connections: 2 },
    { kind: 'bye', incarnation: 'x' },
    { kind: 'doubt', to: 'x', term: 1 },
    { kind: 'ask', from: 'x', id: 1, about: 'channels' },
    { kind: 'ask', from: 'x', id: 2, about: 'disconnect', user: 'ж"' },
    { kind: 'answer', to: 'x', id: 1, incarnation: 'y', part: 0, parts: 1, cut: false, channels: [['a', 1]] },
    { kind: 'answer', to: 'x', id: 2, incarnation: 'y', part: 0, parts: 1, cut: false, count: 3 },
  ];

  test.each(messages)('travel as they are: %j', (message) => {
    const text = encodeControl(message);
    expect(text).not.toContain('\n');
    expect(decodeControl(text)).toEqual(message);
    expect(isForAnother(text, 'x')).toBe(false);
    expect(isForAnother(text, 'xy')).toBe('to' in message);
  });

  test('of another shape are ignored', () => {
    const others = ['', '{', '1', 'null', '[]', '{}', '{"kind":"later"}', '{"kind":"toString"}', '{"kind":1}'];
    for (const text of others) expect(decodeControl(text)).toBeUndefined();
    for (const message of messages) {
      for (const name of Object.keys(message)) {
        const broken = { ...message, [name]: {} };
        expect(decodeControl(JSON.stringify(broken))).toBeUndefined();
      }
    }
  });
});
