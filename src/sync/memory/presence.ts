// The presence store of a single process. What several nodes would share is an object of its own, so that tests may put
// nodes on it that live in one process.

import { textOf, type OwnMember } from '../../presence/member.ts';
import {
  fewMax,
  memberOf,
  membersOf,
  sizeOf,
  withMember,
  withoutMember,
  type MemberList,
} from '../../presence/member-list.ts';
import type {
  Applied,
  BuriedMember,
  Change,
  ListVersion,
  PresenceAtOnce,
  PresenceEvents,
  PresenceStore,
  SignOfLife,
  Snapshot,
  Told,
} from '../../presence/store.ts';
import { randomId, type Clock } from '../../time/clock.ts';

interface ChannelMembers {
  readonly channel: string;
  readonly epoch: string;
  version: number;
  /** The nodes' own objects. Their texts are made when somebody needs them. */
  members: MemberList<OwnMember>;
  /** Each user's, in the order in which they came. Nearly all have one. Absent where few are looked through. */
  users: Map<string, OwnMember | readonly OwnMember[]> | undefined;
}

const nothing: Snapshot = { epoch: '', version: 0, members: [] };
const noPlaces: readonly OwnMember[] = [];

/** Members that one call of `bury` removes. */
const buriedAtOnce = 200;
/** Between objects of one process nothing gets lost, so a few at a time are plenty. */
const positionsMax = 20;

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
  readonly positionsMax = positionsMax;
  readonly atOnce: PresenceAtOnce = {
    apply: (node, change) => this.#apply(node, change),
    read: (channel) => {
      this.#watched.add(channel);
      return this.#read(channel);
    },
  };
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
    return Promise.resolve(this.#read(channel));
  }

  positions(channels: readonly string[]): Promise<readonly ListVersion[]> {
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
    for (const [channel, known] of this.#shared.channels) {
      for (const member of membersOf(known.members)) {
        if (member.node === node) theirs.push({ channel, connection: member.connection });
      }
    }
    const told = theirs.slice(0, buriedAtOnce).flatMap(({ channel, connection }) => {
      const applied = this.#remove(this.#shared.channels.get(channel), connection);
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

  #read(channel: string): Snapshot {
    const known = this.#shared.channels.get(channel);
    return known === undefined ? nothing : this.#snapshotOf(known);
  }

  #snapshotOf(known: ChannelMembers): Snapshot {
    const members = Array.from(membersOf(known.members), (member) => {
      return { connection: member.connection, node: member.node, member: textOf(member, member.since) };
    });
    return { epoch: known.epoch, version: known.version, members };
  }

  #apply(node: string, change: Change): Applied {
    const { channel, connection } = change;
    if (change.kind === 'enter') return this.#enter(node, change);
    const known = this.#shared.channels.get(channel);
    if (change.kind === 'leave') return this.#remove(known, connection);
    const member = memberOf(known?.members, connection);
    if (member !== undefined) member.parts = true;
    return appliedOf(known);
  }

  #enter(node: string, { channel, connection, member, membersMax }: Extract<Change, { kind: 'enter' }>): Applied {
    const { channels, clock } = this.#shared;
    const known = channels.get(channel);
    const before = memberOf(known?.members, connection);
    if (known !== undefined && before !== undefined) return this.#renew(known, node, before, member);
    const places = known === undefined ? noPlaces : placesOf(known, member.user);
    const replaced = places.length === 0 ? undefined : places.find(({ parts }) => parts);
    if (membersMax > 0 && sizeOf(known?.members) >= membersMax && replaced === undefined) {
      return appliedOf(known, undefined, true);
    }
    const members = known ?? this.#create(channel);
    if (replaced !== undefined) forget(members, replaced);
    member.since = replaced?.since ?? clock.now();
    member.node = node;
    member.parts = false;
    add(members, member);
    return this.#tell(members, places.length > 0 ? 'update' : 'join', member, replaced?.connection);
  }

  /** It is a member already. */
  #renew(known: ChannelMembers, node: string, before: OwnMember, member: OwnMember): Applied {
    if (before !== member) {
      member.since = before.since;
      replace(known, before, member);
    }
    member.node = node;
    member.parts = false;
    return before.data === member.data ? appliedOf(known) : this.#tell(known, 'update', member);
  }

  #remove(known: ChannelMembers | undefined, connection: string): Applied {
    const member = memberOf(known?.members, connection);
    if (known === undefined || member === undefined) return appliedOf(known);
    forget(known, member);
    if (known.members === undefined) this.#shared.channels.delete(known.channel);
    const [other] = placesOf(known, member.user);
    if (other === undefined) return this.#tell(known, 'leave', member);
    return this.#tell(known, 'update', other, connection);
  }

  /** In one step with the change of the members. */
  #tell(known: ChannelMembers, kind: Told['kind'], member: OwnMember, left?: string): Applied {
    const { connection, since } = member;
    const told = { kind, version: ++known.version, connection, member: textOf(member, since), left };
    this.#shared.tell(known.channel, known.epoch, [told]);
    return appliedOf(known, told);
  }

  #create(channel: string): ChannelMembers {
    const epoch = randomId(this.#shared.clock, 10);
    const known = { channel, epoch, version: 0, members: undefined, users: undefined };
    this.#shared.channels.set(channel, known);
    return known;
  }

  #position(channel: string): ListVersion {
    const known = this.#shared.channels.get(channel);
    return { epoch: known?.epoch ?? '', version: known?.version ?? 0 };
  }
}

function appliedOf(known: ChannelMembers | undefined, told?: Told, isFull = false): Applied {
  return { epoch: known?.epoch ?? '', version: known?.version ?? 0, told, isFull };
}

function add(known: ChannelMembers, member: OwnMember): void {
  known.members = withMember(known.members, member);
  if (known.users !== undefined) addToUser(known.users, member);
  else if (sizeOf(known.members) > fewMax) {
    known.users = new Map();
    for (const each of membersOf(known.members)) addToUser(known.users, each);
  }
}

function addToUser(users: Map<string, OwnMember | readonly OwnMember[]>, member: OwnMember): void {
  const { user } = member;
  if (user === null) return;
  const others = users.get(user);
  users.set(user, others === undefined ? member : [others, member].flat());
}

function placesOf({ members, users }: ChannelMembers, user: string | null): readonly OwnMember[] {
  if (user === null) return noPlaces;
  if (users !== undefined) return [users.get(user) ?? []].flat();
  return Array.from(membersOf(members)).filter((member) => member.user === user);
}

/** At its place: it is of the same connection, and so of the same user. */
function replace(known: ChannelMembers, before: OwnMember, member: OwnMember): void {
  known.members = withMember(known.members, member);
  setPlaces(
    known,
    before.user,
    placesOf(known, before.user).map((place) => (place === before ? member : place)),
  );
}

function forget(known: ChannelMembers, member: OwnMember): void {
  const { connection, user } = member;
  known.members = withoutMember(known.members, connection);
  if (user === null || known.users === undefined) return;
  setPlaces(
    known,
    user,
    placesOf(known, user).filter((place) => place !== member),
  );
}

function setPlaces({ users }: ChannelMembers, user: string | null, [first, ...others]: readonly OwnMember[]): void {
  if (user === null || users === undefined) return;
  if (first === undefined) users.delete(user);
  else users.set(user, others.length === 0 ? first : [first, ...others]);
}
