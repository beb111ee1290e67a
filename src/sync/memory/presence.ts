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
  PresenceEvents,
  PresenceStore,
  SignOfLife,
  Snapshot,
  Told,
} from '../../presence/store.ts';
import { randomId, type Clock } from '../../time/clock.ts';

interface ChannelMembers {
  readonly epoch: string;
  version: number;
  /** The nodes' own objects. Their texts are made when somebody needs them. */
  members: MemberList<OwnMember>;
  /** Of the members of which no other one is known. */
  readonly node: string;
  /** Each user's, in the order in which they came. Nearly all have one. Absent where few are looked through. */
  users: Map<string, OwnMember | readonly OwnMember[]> | undefined;
}

/** What is told of one change, before it has a version. */
type Telling = Omit<Told, 'version'>;

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
  /** Few at any time. */
  readonly parting = new WeakSet<OwnMember>();
  /** Of members that another node entered than the first one of their channel. */
  readonly nodeOf = new WeakMap<OwnMember, string>();

  constructor(clock: Clock) {
    this.clock = clock;
  }

  tell(channel: string, epoch: string, told: readonly Told[]): void {
    for (const store of this.stores) store.hear(channel, epoch, told);
  }
}

export class MemoryPresence implements PresenceStore {
  readonly positionsMax = positionsMax;
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
    const members = Array.from(membersOf(known.members), (member) => {
      return { connection: member.connection, node: this.#nodeOf(known, member), member: textOf(member, member.since) };
    });
    return Promise.resolve({ epoch: known.epoch, version: known.version, members });
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
        if (this.#nodeOf(known, member) === node) theirs.push({ channel, connection: member.connection });
      }
    }
    const told = theirs.slice(0, buriedAtOnce).flatMap(({ channel, connection }) => {
      const applied = this.#change(channel, node, (known) => this.#remove(known, connection));
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
    if (change.kind === 'leave') return this.#change(channel, node, (known) => this.#remove(known, connection));
    const member = memberOf(this.#shared.channels.get(channel)?.members, connection);
    if (member !== undefined) this.#shared.parting.add(member);
    return { ...this.#position(channel), isFull: false };
  }

  #enter(node: string, { channel, connection, member, membersMax }: Extract<Change, { kind: 'enter' }>): Applied {
    const { channels, parting, clock } = this.#shared;
    const known = channels.get(channel);
    const before = memberOf(known?.members, connection);
    if (before !== undefined)
      return this.#change(channel, node, (members) => this.#renew(members, node, before, member));
    const places = known === undefined ? [] : placesOf(known, member.user);
    const replaced = places.find((place) => parting.has(place));
    const size = sizeOf(known?.members);
    if (membersMax > 0 && size >= membersMax && replaced === undefined) {
      return { ...this.#position(channel), isFull: true };
    }
    return this.#change(channel, node, (members) => {
      if (replaced !== undefined) forget(members, replaced);
      member.since = replaced?.since ?? clock.now();
      add(members, member);
      this.#setNode(members, member, node);
      const kind = places.length > 0 ? 'update' : 'join';
      return { kind, connection, member: textOf(member, member.since), left: replaced?.connection };
    });
  }

  /** It is a member already. */
  #renew(known: ChannelMembers, node: string, before: OwnMember, member: OwnMember): Telling | undefined {
    this.#shared.parting.delete(before);
    if (before !== member) {
      member.since = before.since;
      replace(known, before, member);
    }
    this.#setNode(known, member, node);
    if (before.data === member.data) return undefined;
    return { kind: 'update', connection: member.connection, member: textOf(member, member.since) };
  }

  #nodeOf(known: ChannelMembers, member: OwnMember): string {
    return this.#shared.nodeOf.get(member) ?? known.node;
  }

  #setNode(known: ChannelMembers, member: OwnMember, node: string): void {
    if (node === known.node) this.#shared.nodeOf.delete(member);
    else this.#shared.nodeOf.set(member, node);
  }

  #remove(known: ChannelMembers, connection: string): Telling | undefined {
    const member = memberOf(known.members, connection);
    if (member === undefined) return undefined;
    forget(known, member);
    const [other] = placesOf(known, member.user);
    if (other === undefined) return { kind: 'leave', connection, member: textOf(member, member.since) };
    return { kind: 'update', connection: other.connection, member: textOf(other, other.since), left: connection };
  }

  /** One step: the members, the version, and what is told. */
  #change(channel: string, node: string, run: (known: ChannelMembers) => Telling | undefined): Applied {
    const { channels } = this.#shared;
    const known = channels.get(channel) ?? this.#create(node);
    const telling = run(known);
    if (telling === undefined) return { ...this.#position(channel), isFull: false };
    channels.set(channel, known);
    const told = { ...telling, version: ++known.version };
    if (known.members === undefined) channels.delete(channel);
    this.#shared.tell(channel, known.epoch, [told]);
    return { epoch: known.epoch, version: known.version, told, isFull: false };
  }

  #create(node: string): ChannelMembers {
    const epoch = randomId(this.#shared.clock, 10);
    return { epoch, version: 0, members: undefined, node, users: undefined };
  }

  #position(channel: string): ListVersion {
    const known = this.#shared.channels.get(channel);
    return { epoch: known?.epoch ?? '', version: known?.version ?? 0 };
  }
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
  if (user === null) return [];
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
