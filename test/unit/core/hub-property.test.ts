// Law 1 over random histories: clients on two nodes subscribe, leave, are cut and come back with their positions,
// while publications go through links that delay, drop, repeat and fail, the log is trimmed and sometimes lost. Nodes
// serve them from what they keep, which is sometimes a lot, sometimes little, and swept in between.
//
//  - each subscriber sees each channel in ascending offset, without repeats
//  - any hole is preceded by a `gap` for exactly that channel; data is that of the log
//  - when all has come to rest, every subscriber stands at its channel's head
//  - without trimming, a reset or a full hold, no gap is told at all
//  - after the last connection nothing is left

import { expect, test } from 'bun:test';
import fc from 'fast-check';
import type { RuleConfig } from '../../../src/rules/config.ts';
import type { Publication } from '../../../src/core/publication.ts';
import type { SubscriptionState } from '../../../src/protocol/frames.ts';
import type { Position } from '../../../src/protocol/position.ts';
import { createHub, HandClock, idle, type Connected, type HubHarness, type Told } from '../../support/hub.ts';
import { placeOf, RoughLog, type RoughLink } from '../../support/rough-link.ts';

const clientCount = 4;
const nodeCount = 2;

type Step =
  | {
      readonly do: 'publish';
      readonly channel: number;
      readonly client: number;
      readonly echo: boolean;
      readonly count: number;
    }
  | { readonly do: 'subscribe'; readonly client: number; readonly channel: number; readonly resumes: boolean }
  | { readonly do: 'unsubscribe'; readonly client: number; readonly channel: number }
  | { readonly do: 'cut'; readonly client: number }
  | { readonly do: 'connect'; readonly client: number; readonly node: number }
  | { readonly do: 'move'; readonly node: number; readonly picks: readonly number[] }
  | { readonly do: 'drop' | 'reconnect' | 'sweep' | 'rush'; readonly node: number }
  | { readonly do: 'repeat' | 'fail'; readonly node: number; readonly pick: number }
  | { readonly do: 'stall' | 'flow'; readonly client: number }
  | { readonly do: 'advance'; readonly milliseconds: number }
  | { readonly do: 'reset' };

const client = fc.nat(clientCount - 1);
const node = fc.nat(nodeCount - 1);
const channel = fc.nat(1);
const move: fc.Arbitrary<Step> = fc.record({
  do: fc.constant('move' as const),
  node,
  picks: fc.array(fc.nat(30), { minLength: 1, maxLength: 12 }),
});

const benign: fc.WeightedArbitrary<Step>[] = [
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant('publish' as const),
      channel,
      client: fc.integer({ min: -1, max: clientCount - 1 }),
      echo: fc.boolean(),
      count: fc.constantFrom(1, 1, 1, 2, 5),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({ do: fc.constant('subscribe' as const), client, channel, resumes: fc.boolean() }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('unsubscribe' as const), client, channel }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('cut' as const), client }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('connect' as const), client, node }) },
  { weight: 14, arbitrary: move },
  { weight: 2, arbitrary: fc.record({ do: fc.constantFrom('drop' as const, 'reconnect' as const), node }) },
  {
    weight: 2,
    arbitrary: fc.record({ do: fc.constantFrom('repeat' as const, 'fail' as const), node, pick: fc.nat(6) }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constantFrom('stall' as const, 'flow' as const), client }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constantFrom('sweep' as const, 'rush' as const), node }) },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('advance' as const),
      milliseconds: fc.constantFrom(5, 100, 12_000, 20_000),
    }),
  },
];
const cruel: fc.WeightedArbitrary<Step>[] = [
  ...benign,
  { weight: 1, arbitrary: fc.record({ do: fc.constant('reset' as const) }) },
];

/** A client as it would be written against the wire: it believes positions, and checks each frame against them. */
class Client {
  readonly index: number;
  readonly positions = new Map<string, Position>();
  /** Subscribed on this connection. */
  readonly live = new Set<string>();
  readonly gaps: string[] = [];
  connected: Connected | undefined;
  readonly #world: World;
  readonly #asked = new Map<number, Position | undefined>();
  #nextId = 1;

  constructor(index: number, world: World) {
    this.index = index;
    this.#world = world;
  }

  connect(node: HubHarness): void {
    if (this.connected !== undefined) return;
    const connected = node.connect(this.index % 2 === 0 ? 'websocket' : 'sse');
    this.connected = connected;
    connected.outlet.onTold = (told) => this.#hear(told);
    for (const name of this.positions.keys()) this.subscribe(name, true);
  }

  /** Also notices that the node ended the connection. */
  cut(): void {
    this.connected?.outlet.cut();
    this.connected = undefined;
    this.live.clear();
  }

  send(command: Readonly<Record<string, unknown>>): void {
    this.connected?.session.receive(JSON.stringify(command));
  }

  subscribe(name: string, resumes: boolean): void {
    if (this.connected === undefined) return;
    const since = resumes ? this.positions.get(name) : undefined;
    const id = this.#nextId++;
    this.#asked.set(id, since);
    this.send({ type: 'subscribe', id, channel: name, ...(since === undefined ? {} : { since }) });
  }

  #hear(told: Told): void {
    if (told.kind === 'subscribed') for (const state of told.states) this.#begin(state, Number(told.id));
    else if (told.kind === 'message') this.#read(told.publication);
    else if (told.kind === 'gap') {
      const { channel: name, position, reason } = told.gap;
      if (!this.live.has(name)) throw new Error(`gap in ${name}, which is not subscribed`);
      this.gaps.push(reason);
      this.positions.set(name, position);
    } else if (told.frame.type === 'unsubscribed') this.live.delete(String(told.frame.channel));
  }

  #begin({ channel: name, epoch = '', offset = 0 }: SubscriptionState, id: number): void {
    const since = this.#asked.get(id);
    if (!this.live.has(name)) this.positions.set(name, since ?? { epoch, offset });
    this.live.add(name);
  }

  #read(publication: Publication): void {
    const { channel: name, epoch, offset, data } = publication;
    const position = this.positions.get(name);
    const told = `${placeOf(publication)} after ${position?.epoch} ${position?.offset}`;
    if (position === undefined || !this.live.has(name)) throw new Error(`${told}: not subscribed`);
    if (publication.except === this.connected?.session.id) throw new Error(`${told}: own echo`);
    // A node that has seen no publication of a channel takes its log's epoch from the first one.
    const adopts = position.offset === 0 && position.epoch !== epoch;
    if (!adopts && position.epoch !== epoch) throw new Error(`${told}: another epoch without a gap`);
    let expected = position.offset + 1;
    while (this.#wasExcepted(placeOf({ channel: name, epoch, offset: expected }))) expected++;
    if (offset !== expected) throw new Error(`${told}: expected ${expected}`);
    if (this.#world.log.published.get(placeOf(publication))?.data !== data) throw new Error(`${told}: other data`);
    this.positions.set(name, { epoch, offset });
  }

  /** Whether the client, on one of its connections, asked not to hear this one. */
  #wasExcepted(place: string): boolean {
    const except = this.#world.log.published.get(place)?.except;
    return except !== undefined && except === this.connected?.session.id;
  }

  /** Where it stands if what it asked not to hear is counted as heard, and 0 of one epoch as 0 of any. */
  standsAt(name: string, headEpoch: string): Position | undefined {
    const position = this.positions.get(name);
    if (position === undefined) return undefined;
    let { epoch, offset } = position;
    if (offset === 0) epoch = headEpoch;
    while (this.#wasExcepted(placeOf({ channel: name, epoch, offset: offset + 1 }))) offset++;
    return { epoch, offset };
  }
}

interface NodeLimits {
  readonly holdMax: number;
  readonly keptBytesMax: number;
  readonly pageBytesMax: number;
}

/** Data are numbers of up to three digits; one kept publication costs about 300 bytes, and at most a sixteenth of all. */
const nodeLimits: fc.Arbitrary<NodeLimits> = fc.record({
  holdMax: fc.constantFrom(1, 4, 1_000),
  keptBytesMax: fc.constantFrom(0, 6_000, 64 << 20),
  pageBytesMax: fc.constantFrom(1, 4, 1 << 20),
});

class World {
  readonly clock: HandClock;
  readonly log: RoughLog;
  readonly links: readonly RoughLink[];
  readonly nodes: readonly HubHarness[];
  readonly clients: readonly Client[];
  readonly names: readonly string[];
  #data = 0;

  constructor(seed: number, historySize: number, { holdMax, keptBytesMax, pageBytesMax }: NodeLimits) {
    const rules: RuleConfig[] = [{ channels: '*', history: { size: historySize } }];
    this.clock = new HandClock(seed);
    this.log = new RoughLog(this.clock);
    this.links = Array.from({ length: nodeCount }, () => this.log.link());
    const recovery = { holdMax, holdBytesMax: 1 << 20, pageSize: 3, pageBytesMax, timeoutMs: 300_000 };
    this.nodes = this.links.map((adapter) =>
      createHub({ adapter, clock: this.clock, rules, limits: { holdMax, keptBytesMax, recovery } }),
    );
    this.clients = Array.from({ length: clientCount }, (_, index) => new Client(index, this));
    this.names = ['a', 'b'];
  }

  async run(steps: readonly Step[]): Promise<void> {
    for (const step of steps) {
      this.#step(step);
      await idle();
      for (const each of this.clients) if (each.connected?.session.closed === true) each.cut();
    }
  }

  #step(step: Step): void {
    switch (step.do) {
      case 'publish': {
        const name = this.#name(step.channel);
        for (let count = 0; count < step.count; count++) this.#publish(name, step.client, step.echo);
        return;
      }
      case 'subscribe':
        this.clients[step.client]!.subscribe(this.#name(step.channel), step.resumes);
        return;
      case 'unsubscribe':
        this.clients[step.client]!.send({ type: 'unsubscribe', channel: this.#name(step.channel) });
        return;
      case 'cut':
        this.clients[step.client]!.cut();
        return;
      case 'connect':
        this.clients[step.client]!.connect(this.nodes[step.node]!);
        return;
      case 'move':
        for (const pick of step.picks) this.#move(this.links[step.node]!, pick);
        return;
      case 'drop':
        this.links[step.node]!.drop();
        return;
      case 'reconnect':
        this.links[step.node]!.reconnect();
        return;
      case 'rush':
        for (const each of this.clients) {
          each.cut();
          each.connect(this.nodes[step.node]!);
        }
        return;
      case 'sweep':
        this.nodes[step.node]!.hub.sweep();
        return;
      case 'repeat':
        this.links[step.node]!.repeat(step.pick);
        return;
      case 'fail':
        this.links[step.node]!.fail(step.pick);
        return;
      case 'stall':
      case 'flow': {
        const outlet = this.clients[step.client]!.connected?.outlet;
        if (outlet !== undefined) outlet.buffered = step.do === 'stall' ? 300 << 10 : 0;
        return;
      }
      case 'advance':
        this.clock.advance(step.milliseconds);
        return;
      case 'reset':
        this.log.reset();
    }
  }

  #name(index: number): string {
    return this.names[index] ?? 'a';
  }

  #publish(name: string, clientIndex: number, echo: boolean): void {
    const data = this.#data++;
    const sender = this.clients[clientIndex];
    if (sender?.connected !== undefined) sender.send({ type: 'publish', channel: name, data, echo });
    else {
      const rule = this.nodes[0]!.rules.for(name);
      this.log.memory.publish({ channel: name, rule, data: String(data), at: this.clock.now() });
    }
  }

  #move(link: RoughLink, pick: number): void {
    if (pick % 3 === 0) link.advance(Math.floor(pick / 3));
    else link.deliver();
  }

  /** Lets everything arrive and all sockets flow, tells the heads, and stops when nothing moves any more. */
  async rest(): Promise<void> {
    for (const { connected } of this.clients) if (connected !== undefined) connected.outlet.buffered = 0;
    let heads = false;
    for (let round = 0; round < 2_000; round++) {
      let moved = false;
      for (const link of this.links) {
        while (link.deliver()) moved = true;
        while (link.advance(0)) moved = true;
      }
      await idle();
      if (moved) continue;
      if (this.clock.sleeping > 0) {
        this.clock.advance(5_000);
        await idle();
      } else if (!heads) {
        heads = true;
        for (const link of this.links) link.tellHeads();
      } else {
        return;
      }
    }
    throw new Error('the nodes do not come to rest');
  }

  checkAtHead(): void {
    for (const each of this.clients) {
      if (each.connected === undefined || each.connected.session.closed) continue;
      for (const name of each.live) {
        const head = this.log.memory.history(name, this.nodes[0]!.rules.for(name), { limit: 1 }).head;
        expect({ client: each.index, name, ...each.standsAt(name, head.epoch) }).toEqual({
          client: each.index,
          name,
          ...head,
        });
      }
    }
  }

  async checkCleaned(): Promise<void> {
    for (const each of this.clients) each.cut();
    await this.rest();
    for (const [index, { hub, sessions, fanouts }] of this.nodes.entries()) {
      expect(sessions.size).toBe(0);
      expect(hub.channelCount).toBe(0);
      expect(hub.subscriptionCount).toBe(0);
      expect(fanouts.map((fanout) => fanout.channels)).toEqual([0, 0]);
      expect([...this.links[index]!.subscribed.keys()]).toEqual([]);
      this.clock.advance(20_000);
      hub.sweep();
      expect(hub.keptBytes).toBe(0);
    }
  }
}

async function hold(world: World, steps: readonly Step[]): Promise<void> {
  // Everyone begins connected: shorter histories find more.
  for (const each of world.clients) each.connect(world.nodes[each.index % nodeCount]!);
  await world.run(steps);
  await world.rest();
  for (const each of world.clients) if (each.connected?.session.closed === true) each.cut();
  world.checkAtHead();
}

test('loss is never silent, whatever the sync layer does', async () => {
  const property = fc.asyncProperty(
    fc.integer(),
    fc.constantFrom(2, 5, 1_000),
    nodeLimits,
    fc.array(fc.oneof(...cruel), { minLength: 5, maxLength: 120, size: 'max' }),
    async (seed, historySize, limits, steps) => {
      const world = new World(seed, historySize, limits);
      await hold(world, steps);
      await world.checkCleaned();
    },
  );
  await fc.assert(property, { numRuns: 4_000 });
}, 60_000);

test('without trimming or a lost log nobody is told of a gap', async () => {
  const property = fc.asyncProperty(
    fc.integer(),
    nodeLimits,
    fc.array(fc.oneof(...benign), { minLength: 5, maxLength: 120, size: 'max' }),
    async (seed, limits, steps) => {
      const world = new World(seed, 10_000, limits);
      await hold(world, steps);
      // `trimmed` is told to one who is subscribed already and then claims an older position, and to nobody else here.
      const gaps = world.clients.flatMap((each) => each.gaps.filter((reason) => reason !== 'trimmed'));
      expect(gaps).toEqual([]);
      await world.checkCleaned();
    },
  );
  await fc.assert(property, { numRuns: 4_000 });
}, 60_000);
