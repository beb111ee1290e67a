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

/** There are many, so one has no more fields than it must. Its text is made when somebody needs it. */
interface Stored {
  readonly connection: string;
  node: string;
  readonly user: string | null;
  data: string;
  readonly since: number;
}

interface ChannelMembers {
  readonly epoch: string;
  version: number;
  readonly members: SmallMap<string, Stored>;
  /** Each user's, in the order in which they came. Nearly all have one. Absent where the members are few. */
  users: Map<string, Stored | readonly Stored[]> | undefined;
}

/** So few are looked through for those of a user. */
const fewMax = 16;

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
  /** Few at any time. */
  readonly parting = new WeakSet<Stored>();

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
    const members = Array.from(known.members.values(), (stored) => {
      const { connection, node } = stored;
      return { connection, node, member: textOf(stored) };
    });
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
    if (stored !== undefined) this.#shared.parting.add(stored);
    return { ...this.#position(channel), isFull: false };
  }

  #enter(node: string, change: Extract<Change, { kind: 'enter' }>): Applied {
    const { channel, connection, user, data, membersMax } = change;
    const { channels, parting, clock } = this.#shared;
    const known = channels.get(channel);
    const before = known?.members.get(connection);
    if (before !== undefined) {
      parting.delete(before);
      return this.#change(channel, () => renew(before, node, data));
    }
    const places = known === undefined ? [] : placesOf(known, user);
    const replaced = places.find((place) => parting.has(place));
    const size = known?.members.size ?? 0;
    if (membersMax > 0 && size >= membersMax && replaced === undefined) {
      return { ...this.#position(channel), isFull: true };
    }
    return this.#change(channel, (members) => {
      if (replaced !== undefined) forget(members, replaced);
      const stored = { connection, node, user, data, since: replaced?.since ?? clock.now() };
      add(members, stored);
      const kind = places.length > 0 ? 'update' : 'join';
      return { kind, connection, member: textOf(stored), left: replaced?.connection };
    });
  }

  #remove(known: ChannelMembers, connection: string): Telling | undefined {
    const stored = known.members.get(connection);
    if (stored === undefined) return undefined;
    forget(known, stored);
    const [other] = placesOf(known, stored.user);
    if (other === undefined) return { kind: 'leave', connection, member: textOf(stored) };
    return { kind: 'update', connection: other.connection, member: textOf(other), left: connection };
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
    return { epoch: randomId(this.#shared.clock, 10), version: 0, members: new SmallMap(), users: undefined };
  }

  #position(channel: string): Position {
    const known = this.#shared.channels.get(channel);
    return { epoch: known?.epoch ?? '', version: known?.version ?? 0 };
  }
}

/** It is a member already. */
function renew(stored: Stored, node: string, data: string): Telling | undefined {
  stored.node = node;
  if (stored.data === data) return undefined;
  stored.data = data;
  return { kind: 'update', connection: stored.connection, member: textOf(stored) };
}

function textOf({ user, connection, data, since }: Stored): string {
  return memberJson(user, connection, data, since);
}

function add(known: ChannelMembers, stored: Stored): void {
  known.members.set(stored.connection, stored);
  if (known.users !== undefined) addToUser(known.users, stored);
  else if (known.members.size > fewMax) {
    known.users = new Map();
    for (const each of known.members.values()) addToUser(known.users, each);
  }
}

function addToUser(users: Map<string, Stored | readonly Stored[]>, stored: Stored): void {
  const { user } = stored;
  if (user === null) return;
  const others = users.get(user);
  users.set(user, others === undefined ? stored : [others, stored].flat());
}

function placesOf({ members, users }: ChannelMembers, user: string | null): readonly Stored[] {
  if (user === null) return [];
  if (users !== undefined) return [users.get(user) ?? []].flat();
  return [...members.values()].filter((stored) => stored.user === user);
}

function forget(known: ChannelMembers, stored: Stored): void {
  const { connection, user } = stored;
  known.members.delete(connection);
  if (user === null || known.users === undefined) return;
  const [first, ...others] = placesOf(known, user).filter((other) => other !== stored);
  if (first === undefined) known.users.delete(user);
  else known.users.set(user, others.length === 0 ? first : [first, ...others]);
}
