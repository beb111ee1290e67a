// Three nodes on one store, in which members come, part, leave, move and change, stores go away, lose their memory or
// tell nothing, and a node dies: whatever the order, in the end every node's list and every client's is the truth, and no
// client heard a user join who was there, or leave who was not.
import { expect, test } from 'bun:test';
import fc from 'fast-check';
import type { PresenceChangeFrame, PresenceFrame } from '../../../src/protocol/frames.ts';
import { MemoryMembers } from '../../../src/sync/memory/presence.ts';
import { createHub, HandClock, idle, type Connected, type HubHarness } from '../../support/hub.ts';
import { Belief } from '../../support/presence-belief.ts';

type Action =
  | { readonly do: 'enter'; readonly node: number; readonly user: number }
  | { readonly do: 'cut' | 'leave' | 'data' | 'move'; readonly client: number; readonly node: number }
  | { readonly do: 'pass'; readonly milliseconds: number }
  | { readonly do: 'away' | 'back' | 'deaf' | 'kill'; readonly node: number }
  | { readonly do: 'lose' };

interface Client {
  readonly node: number;
  readonly user: string | null;
  readonly connected: Connected;
  readonly belief: Belief;
  isMember: boolean;
}

const channel = 'room:1';
const nodeCount = 3;

class World {
  readonly clock = new HandClock();
  readonly members = new MemoryMembers(this.clock);
  readonly hubs: HubHarness[] = Array.from({ length: nodeCount }, (_, index) =>
    createHub({ clock: this.clock, members: this.members, incarnation: `n${index}`, limits: { nodeId: `n${index}` } }),
  );
  readonly alive = this.hubs.map(() => true);
  clients: Client[] = [];
  readonly faults: string[] = [];

  constructor() {
    // One waits for its store, as where that is elsewhere.
    this.hubs[1]!.store.answersAtOnce = false;
  }

  async run(action: Action): Promise<void> {
    switch (action.do) {
      case 'enter':
        return this.enter(action.node, action.user === 0 ? null : `u${action.user}`);
      case 'pass':
        return this.pass(action.milliseconds);
      case 'away':
      case 'back':
        return this.#setAway(action.node, action.do === 'away');
      case 'deaf':
        this.hubs[action.node]!.store.isDeaf = !this.hubs[action.node]!.store.isDeaf;
        return;
      case 'kill':
        return this.#kill(action.node);
      case 'lose':
        return this.#lose();
      case 'cut':
      case 'leave':
      case 'data':
      case 'move':
        return this.#with(action);
    }
  }

  async enter(node: number, user: string | null): Promise<void> {
    if (this.alive[node] !== true) return;
    const connected = this.hubs[node]!.connect('websocket', { user });
    const client: Client = { node, user, connected, belief: new Belief(), isMember: false };
    connected.outlet.onTold = (told) => this.#told(client, told);
    this.clients.push(client);
    await connected.send({ type: 'subscribe', channel, presence: { by: node } });
    await connected.send({ type: 'presence', id: 'list', channel, limit: 10_000 });
  }

  /** Time passes, and what it brings about happens. */
  async pass(milliseconds: number): Promise<void> {
    for (let passed = 0; passed < milliseconds; passed += 250) {
      this.clock.advance(Math.min(250, milliseconds - passed));
      await idle();
    }
  }

  /** Everything is there again, and has had the time to come to rest. */
  async rest(): Promise<void> {
    for (let node = 0; node < nodeCount; node++) {
      if (this.alive[node] !== true) continue;
      this.hubs[node]!.store.isDeaf = false;
      this.#setAway(node, false);
    }
    // A store that lost its memory may know nothing of a node that died soon after. Whoever looks finds that out, and the
    // node's members are there for ten seconds more.
    await this.pass(10_000);
    const living = this.hubs.filter((_, node) => this.alive[node] === true);
    const looks = Promise.all(living.map(async ({ presence }) => presence.list(channel, 1)));
    await this.pass(40_000);
    await looks;
    for (const { connected, isMember } of this.clients) {
      if (isMember) await connected.send({ type: 'presence', id: 'list', channel, limit: 10_000 });
    }
    await this.pass(1_000);
  }

  get truth(): string[] {
    return this.clients
      .filter(({ isMember }) => isMember)
      .map(({ connected }) => connected.session.id)
      .toSorted();
  }

  #told(client: Client, told: Parameters<Connected['outlet']['onTold']>[0]): void {
    if (told.kind === 'subscribed') client.isMember = true;
    if (told.kind !== 'frame') return;
    const { type, id } = told.frame;
    if (type === 'presence' && id !== 'data') client.belief.list(told.frame as unknown as PresenceFrame);
    else if (type === 'join' || type === 'leave' || type === 'update') {
      client.belief.push(told.frame as unknown as PresenceChangeFrame);
    }
  }

  async #with(action: Extract<Action, { client: number }>): Promise<void> {
    const client = this.clients[action.client % Math.max(1, this.clients.length)];
    if (client === undefined) return;
    const { connected } = client;
    if (action.do === 'data') {
      await connected.send({ type: 'presence', id: 'data', channel, data: action.node, limit: 0 });
      return;
    }
    if (action.do === 'leave') await connected.send({ type: 'unsubscribe', channel });
    connected.outlet.cut();
    this.#forget(client);
    if (action.do === 'move') await this.enter(action.node, client.user);
  }

  #forget(client: Client): void {
    client.isMember = false;
    this.faults.push(...client.belief.faults);
    this.clients = this.clients.filter((other) => other !== client);
  }

  #setAway(node: number, isAway: boolean): void {
    const { store } = this.hubs[node]!;
    if (this.alive[node] !== true || (store.state === 'away') === isAway) return;
    if (isAway) store.state = 'away';
    else store.resume();
  }

  #kill(node: number): void {
    if (this.alive.filter(Boolean).length < 2) return;
    this.alive[node] = false;
    this.hubs[node]!.store.state = 'killed';
    for (const client of this.clients.filter((each) => each.node === node)) this.#forget(client);
  }

  #lose(): void {
    this.members.channels.clear();
    this.members.nodes.clear();
    this.hubs.forEach(({ store }, node) => {
      if (this.alive[node] === true && store.state === 'works') store.resume();
    });
  }
}

const node = fc.integer({ min: 0, max: nodeCount - 1 });
const client = fc.nat(20);
const action: fc.Arbitrary<Action> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({ do: fc.constant('enter' as const), node, user: fc.integer({ min: 0, max: 4 }) }),
  },
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constantFrom('cut' as const, 'leave' as const, 'data' as const, 'move' as const),
      client,
      node,
    }),
  },
  {
    weight: 5,
    arbitrary: fc.record({ do: fc.constant('pass' as const), milliseconds: fc.integer({ min: 1, max: 8_000 }) }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constantFrom('away' as const, 'back' as const, 'deaf' as const), node }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('kill' as const), node }) },
  { weight: 1, arbitrary: fc.constant({ do: 'lose' as const }) },
);

test('in the end every list is the truth, and on the way nobody joins twice or leaves twice', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(action, { minLength: 5, maxLength: 40 }), async (actions) => {
      const world = new World();
      for (const each of actions) await world.run(each);
      await world.rest();
      const { truth } = world;
      for (const [index, { presence }] of world.hubs.entries()) {
        if (world.alive[index] !== true) continue;
        const listing = presence.list(channel, 10_000);
        await world.pass(1_000);
        const { members } = await listing;
        const listed = (JSON.parse(members) as { connection: string }[]).map(({ connection }) => connection);
        expect([index, listed.toSorted()]).toEqual([index, truth]);
      }
      for (const { belief, isMember } of world.clients) if (isMember) expect(belief.connections).toEqual(truth);
      expect([...world.faults, ...world.clients.flatMap(({ belief }) => belief.faults)]).toEqual([]);
      // Nothing is left when everybody is gone.
      for (const { connected } of world.clients) connected.outlet.cut();
      await world.pass(30_000);
      expect(world.members.channels.size).toBe(0);
    }),
    { numRuns: process.env['LONG'] === '1' ? 5_000 : 150 },
  );
}, 300_000);
