// The presence store of a single process. What several nodes would share is an object of its own, so that tests may put
// nodes on it that live in one process.

import { memberJson } from '../../presence/member.ts';
import { SmallMap } from '../../presence/small-map.ts';
import type {
  Applied,
  BuriedMember,
  Change,
  Position,
  PresenceEvents,
  PresenceStore,
  SignOfLife,
  Snapshot,
  Told,
} from '../../presence/store.ts';
import { randomId, type Clock } from '../../time/clock.ts';

interface Stored {
  readonly connection: string;
  node: string;
  readonly user: string | null;
  data: string;
  readonly since: number;
  isParting: boolean;
  member: string;
}

interface ChannelMembers {
  readonly epoch: string;
  version: number;
  readonly members: SmallMap<string, Stored>;
  /** Each user's, in the order in which they came. Nearly all have one. */
  readonly users: SmallMap<string, Stored | readonly Stored[]>;
}

/** What is told of one change, before it has a version. */
type Telling = Omit<Told, 'version'>;

/** Members that one call of `bury` removes. */
const buriedAtOnce = 200;

export class MemoryMembers {
  readonly clock: Clock;
  readonly channels = new Map<string, ChannelMembers>();
  /** Node → when it counts as dead. */
  readonly nodes = new Map<string, number>();
  readonly stores = new Set<MemoryPresence>();

  constructor(clock: Clock) {
    this.clock = clock;
  }

  tell(channel: string, epoch: string, told: readonly Told[]): void {
    for (const store of this.stores) store.hear(channel, epoch, told);
  }
}

export class MemoryPresence implements PresenceStore {
  readonly #shared: MemoryMembers;
  readonly #watched = new Set<string>();
  #events: PresenceEvents | undefined;

  constructor(shared: MemoryMembers) {
    this.#shared = shared;
  }

  start(events: PresenceEvents): void {
    this.#events = events;
    this.#shared.stores.add(this);
  }

  /** Of another store on the same members, or of this one. */
  hear(channel: string, epoch: string, told: readonly Told[]): void {
    if (this.#watched.has(channel)) this.#events?.changed(channel, epoch, told);
  }

  apply(node: string, changes: readonly Change[]): Promise<readonly Applied[]> {
    return Promise.resolve(changes.map((change) => this.#apply(node, change)));
  }

  watch(channel: string): Promise<void> {
    this.#watched.add(channel);
    return Promise.resolve();
  }

  unwatch(channel: string): void {
    this.#watched.delete(channel);
  }

  read(channel: string): Promise<Snapshot> {
    const known = this.#shared.channels.get(channel);
    if (known === undefined) return Promise.resolve({ epoch: '', version: 0, members: [] });
    const members = Array.from(known.members.values(), ({ connection, node, member }) => ({
      connection,
      node,
      member,
    }));
    return Promise.resolve({ epoch: known.epoch, version: known.version, members });
  }

  positions(channels: readonly string[]): Promise<readonly Position[]> {
    return Promise.resolve(channels.map((channel) => this.#position(channel)));
  }

  live(node: string, milliseconds: number): Promise<SignOfLife> {
    const { nodes, clock } = this.#shared;
    const now = clock.monotonic();
    const isKnown = nodes.has(node);
    nodes.set(node, now + milliseconds);
    const others = [...nodes].filter(([other]) => other !== node);
    const dead = others.filter(([, diesAt]) => diesAt <= now).map(([other]) => other);
    const next = Math.min(...others.map(([, diesAt]) => diesAt).filter((diesAt) => diesAt > now));
    return Promise.resolve({ isKnown, dead, nextDeathMs: Number.isFinite(next) ? next - now : undefined });
  }

  end(node: string, milliseconds: number): Promise<void> {
    const { nodes, clock } = this.#shared;
    nodes.set(node, clock.monotonic() + milliseconds);
    return Promise.resolve();
  }

  suspect(_channel: string, nodes: readonly string[], milliseconds: number): Promise<void> {
    const { nodes: known, clock } = this.#shared;
    for (const node of nodes) if (!known.has(node)) known.set(node, clock.monotonic() + milliseconds);
    return Promise.resolve();
  }

  bury(node: string): Promise<{ isDone: boolean; told: readonly BuriedMember[] }> {
    const theirs: { channel: string; connection: string }[] = [];
    for (const [channel, { members }] of this.#shared.channels) {
      for (const { connection, node: of } of members.values()) if (of === node) theirs.push({ channel, connection });
    }
    const told = theirs.slice(0, buriedAtOnce).flatMap(({ channel, connection }) => {
      const applied = this.#change(channel, (known) => this.#remove(known, connection));
      return applied.told === undefined ? [] : [{ channel, told: applied.told }];
    });
    const isDone = theirs.length <= buriedAtOnce;
    if (isDone) this.#shared.nodes.delete(node);
    return Promise.resolve({ isDone, told });
  }

  close(): Promise<void> {
    this.#shared.stores.delete(this);
    this.#watched.clear();
    this.#events = undefined;
    return Promise.resolve();
  }

  #apply(node: string, change: Change): Applied {
    const { channel, connection } = change;
    if (change.kind === 'enter') return this.#enter(node, change);
    if (change.kind === 'leave') return this.#change(channel, (known) => this.#remove(known, connection));
    const stored = this.#shared.channels.get(channel)?.members.get(connection);
    if (stored !== undefined) stored.isParting = true;
    return { ...this.#position(channel), isFull: false };
  }

  #enter(node: string, change: Extract<Change, { kind: 'enter' }>): Applied {
    const { channel, connection, user, data, membersMax } = change;
    const { channels, clock } = this.#shared;
    const known = channels.get(channel);
    const before = known?.members.get(connection);
    if (before !== undefined) return this.#change(channel, () => renew(before, node, data));
    const places = known === undefined ? [] : placesOf(known, user);
    const replaced = places.find(({ isParting }) => isParting);
    const size = known?.members.size ?? 0;
    if (membersMax > 0 && size >= membersMax && replaced === undefined) {
      return { ...this.#position(channel), isFull: true };
    }
    return this.#change(channel, (members) => {
      if (replaced !== undefined) forget(members, replaced);
      const since = replaced?.since ?? clock.now();
      const member = memberJson(user, connection, data, since);
      add(members, { connection, node, user, data, since, isParting: false, member });
      return { kind: places.length > 0 ? 'update' : 'join', connection, member, left: replaced?.connection };
    });
  }

  #remove(known: ChannelMembers, connection: string): Telling | undefined {
    const stored = known.members.get(connection);
    if (stored === undefined) return undefined;
    forget(known, stored);
    const [other] = placesOf(known, stored.user);
    if (other === undefined) return { kind: 'leave', connection, member: stored.member };
    return { kind: 'update', connection: other.connection, member: other.member, left: connection };
  }

  /** One step: the members, the version, and what is told. */
  #change(channel: string, run: (known: ChannelMembers) => Telling | undefined): Applied {
    const { channels } = this.#shared;
    const known = channels.get(channel) ?? this.#create();
    const telling = run(known);
    if (telling === undefined) return { ...this.#position(channel), isFull: false };
    channels.set(channel, known);
    const told = { ...telling, version: ++known.version };
    if (known.members.size === 0) channels.delete(channel);
    this.#shared.tell(channel, known.epoch, [told]);
    return { epoch: known.epoch, version: known.version, told, isFull: false };
  }

  #create(): ChannelMembers {
    return { epoch: randomId(this.#shared.clock, 10), version: 0, members: new SmallMap(), users: new SmallMap() };
  }

  #position(channel: string): Position {
    const known = this.#shared.channels.get(channel);
    return { epoch: known?.epoch ?? '', version: known?.version ?? 0 };
  }
}

/** It is a member already. */
function renew(stored: Stored, node: string, data: string): Telling | undefined {
  stored.node = node;
  stored.isParting = false;
  if (stored.data === data) return undefined;
  stored.data = data;
  stored.member = memberJson(stored.user, stored.connection, data, stored.since);
  return { kind: 'update', connection: stored.connection, member: stored.member };
}

function add({ members, users }: ChannelMembers, stored: Stored): void {
  const { connection, user } = stored;
  members.set(connection, stored);
  if (user === null) return;
  const others = users.get(user);
  users.set(user, others === undefined ? stored : [others, stored].flat());
}

function placesOf({ users }: ChannelMembers, user: string | null): readonly Stored[] {
  return user === null ? [] : [users.get(user) ?? []].flat();
}

function forget(known: ChannelMembers, stored: Stored): void {
  const { connection, user } = stored;
  known.members.delete(connection);
  if (user === null) return;
  const [first, ...others] = placesOf(known, user).filter((other) => other !== stored);
  if (first === undefined) known.users.delete(user);
  else known.users.set(user, others.length === 0 ? first : [first, ...others]);
}
