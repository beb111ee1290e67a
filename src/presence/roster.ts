// The list of one channel on this node, which mirrors the store's: read once, then kept by the changes that are told.
//
//   reading   the store is being asked; changes that arrive already are held
//   live      each change is the next one, and goes to this node's listeners in the step that puts it into the list
//
// A version that is missing, or another epoch, starts a reading. What is told after one that was live before is a fresh
// list: listeners forget what they knew. So a list and the changes after it always fit together.
//
// To several listeners a change is one write per connection. So changes that come in quick succession wait for each other,
// the longer the more listeners there are, and the list waits with them. Where there are many, the announcer paces, and a
// listener may hear what its list has already: it goes by the version.

import type { MaybePromise } from '../core/maybe-promise.ts';
import type { PresenceList } from '../protocol/frames.ts';
import { backoffMs } from '../time/backoff.ts';
import type { Clock } from '../time/clock.ts';
import { manyListeners } from './announcer.ts';
import { isTextOf, sinceOf, textOf, type OwnMember } from './member.ts';
import { membersOf, sizeOf, withMember, withoutMember, type MemberList } from './member-list.ts';
import type { PresenceStore, Snapshot, StoredMember, Told } from './store.ts';

export interface RosterPorts {
  readonly store: PresenceStore;
  readonly clock: Clock;
  /** Connections of this node that are told. */
  readonly listeners: (channel: string) => number;
  /** A member of this node, which is held anyway. */
  readonly own: (channel: string, connection: string) => OwnMember | undefined;
  /** Changes of a live list, in order. */
  readonly changed: (roster: Roster, told: readonly Told[]) => void;
  /** It was read; `isAwaited` when listeners knew an earlier one, or wait for the first. */
  readonly read: (roster: Roster, snapshot: Snapshot, isAwaited: boolean) => void;
  readonly log: (message: string, error: unknown) => void;
}

/** Of another node, or with other data than its node wants by now. */
interface OtherMember {
  readonly connection: string;
  /** As JSON. */
  readonly text: string;
}

interface Held {
  readonly epoch: string;
  readonly told: readonly Told[];
}

interface Waiting {
  readonly epoch: string;
  readonly version: number;
  readonly wake: () => void;
}

/** Changes that are held while the list is read; past it the list is read once more. */
const heldMax = 10_000;
/** Before a list is read again that did not fit what was told meanwhile. */
const pauseMs = 10;
/** Changes that the store has counted are told within this time. */
const heldWithinMs = 1_000;
const retry = { firstMs: 100, maxMs: 2_000 };
/** 900 listeners are told every 9 ms, 200 every 2 ms, fewer at once: a write to a socket costs some 5 µs. */
const listenersPerMs = 100;
const windowMsMin = 2;

export class Roster {
  readonly channel: string;
  /** When somebody needed it, by the monotonic clock. */
  usedAt: number;
  readonly #ports: RosterPorts;
  /** In the order in which they came. */
  #members: MemberList<OtherMember | OwnMember>;
  #epoch = '';
  #version = 0;
  #state: 'reading' | 'live' | 'closed' = 'reading';
  #isAwaited = false;
  /** What was told and is not in the list yet. */
  #held: Held[] | undefined;
  #heldOverflowed = false;
  #changedAt = 0;
  #isPacing = false;
  #reading: Promise<void> | undefined;
  #readAgain = false;
  #waiting: Waiting[] | undefined;
  /** The last list that was asked for, which many may ask for in one moment. */
  #text: { readonly limit: number; readonly list: PresenceList } | undefined;

  constructor(channel: string, ports: RosterPorts) {
    this.channel = channel;
    this.#ports = ports;
    this.usedAt = ports.clock.monotonic();
  }

  get isLive(): boolean {
    return this.#state === 'live';
  }

  get epoch(): string {
    return this.#epoch;
  }

  get version(): number {
    return this.#version;
  }

  /** What the store told. */
  take(epoch: string, told: readonly Told[]): void {
    this.#held ??= [];
    if (this.#held.length < heldMax) this.#held.push({ epoch, told });
    else this.#heldOverflowed = true;
    if (this.#state !== 'live' || this.#isPacing) return;
    const leftMs = this.#leftMs();
    if (leftMs > 0) this.#pace(leftMs);
    else this.#applyHeld();
  }

  /** Nothing is told any more until it is read. */
  suspend(): void {
    if (this.#state !== 'live') return;
    this.#state = 'reading';
    this.#isAwaited = true;
  }

  /** A listener began to hear of a list that is not live, and is told it as soon as it is. */
  expectList(): void {
    this.#isAwaited ||= this.#state === 'reading';
  }

  /** Reads the list; if that is under way, once more after it. Resolves when it is live, or closed. Never rejects. */
  read(): MaybePromise<void> {
    this.suspend();
    const { atOnce } = this.#ports.store;
    if (atOnce !== undefined && this.#reading === undefined && this.#state === 'reading') {
      this.#held = undefined;
      this.#heldOverflowed = false;
      this.#begin(atOnce.read(this.channel));
      return undefined;
    }
    this.#readAgain = true;
    this.#reading ??= this.#readUntilLive();
    return this.#reading;
  }

  /** Resolves when it is live; undefined if it is. */
  whenLive(): Promise<void> | undefined {
    return this.reached('', 0);
  }

  /** Resolves once this version is in the list, or the list is another one; undefined if it is so. */
  reached(epoch: string, version: number): Promise<void> | undefined {
    if (this.#isPast(epoch, version)) return undefined;
    return new Promise((wake) => (this.#waiting ??= []).push({ epoch, version, wake }));
  }

  list(limit: number): PresenceList {
    const known = this.#text;
    if (known?.limit === limit) return known.list;
    const members: string[] = [];
    for (const member of membersOf(this.#members)) {
      if (members.length === limit) break;
      members.push('text' in member ? member.text : textOf(member, member.since));
    }
    const list = { count: sizeOf(this.#members), version: this.#version, members: `[${members.join(',')}]` };
    this.#text = { limit, list };
    return list;
  }

  close(): void {
    this.#state = 'closed';
    this.#held = undefined;
    this.#members = undefined;
    this.#text = undefined;
    const waiting = this.#waiting ?? [];
    this.#waiting = undefined;
    for (const { wake } of waiting) wake();
  }

  // Changes

  #leftMs(): number {
    const { clock, listeners } = this.#ports;
    const count = listeners(this.channel);
    const windowMs = count >= manyListeners ? 0 : count / listenersPerMs;
    return windowMs < windowMsMin ? 0 : this.#changedAt + windowMs - clock.monotonic();
  }

  #pace(leftMs: number): void {
    this.#isPacing = true;
    void this.#ports.clock.sleep(leftMs).then(() => {
      this.#isPacing = false;
      if (this.#state === 'live') this.#applyHeld();
    });
  }

  #applyHeld(): void {
    const applied: Told[] = [];
    const isWhole = this.#applyAll(applied);
    if (applied.length > 0) this.#ports.changed(this, applied);
    this.#wakeReached();
    // There is a hole.
    if (!isWhole) void this.read();
  }

  /** Puts what is held into the list, and adds it to `applied`. False when something is missing in between. */
  #applyAll(applied: Told[]): boolean {
    let isWhole = !this.#heldOverflowed;
    const held = this.#held ?? [];
    this.#held = undefined;
    for (const { epoch, told } of held) {
      for (const change of told) if (isWhole) isWhole = this.#apply(epoch, change, applied);
    }
    this.#changedAt = this.#ports.clock.monotonic();
    if (applied.length > 0) this.#text = undefined;
    return isWhole;
  }

  /** False for one that does not follow on the list. */
  #apply(epoch: string, change: Told, applied: Told[]): boolean {
    const { kind, version, connection, member, left } = change;
    const begins = this.#version === 0 && version === 1;
    if (epoch !== this.#epoch && !begins) return false;
    if (epoch === this.#epoch && version <= this.#version) return true;
    if (version !== this.#version + 1) return false;
    this.#epoch = epoch;
    this.#version = version;
    if (kind === 'leave') this.#members = withoutMember(this.#members, connection);
    else this.#set(connection, member);
    if (left !== undefined) this.#members = withoutMember(this.#members, left);
    applied.push(change);
    return true;
  }

  /** The text of one that is held anyway is not kept: it takes more than all else of a member. */
  #set(connection: string, member: string): void {
    const own = this.#ports.own(this.channel, connection);
    if (own === undefined || !isTextOf(own, member)) {
      this.#members = withMember(this.#members, { connection: own?.connection ?? connection, text: member });
      return;
    }
    own.since = sinceOf(member);
    this.#members = withMember(this.#members, own);
  }

  // Reading

  async #readUntilLive(): Promise<void> {
    const { store, clock, log } = this.#ports;
    for (let failures = 0; this.#state === 'reading';) {
      this.#readAgain = false;
      // What was told before the reading began is in what it brings.
      this.#held = undefined;
      this.#heldOverflowed = false;
      let snapshot: Snapshot;
      try {
        await store.watch(this.channel);
        snapshot = await store.read(this.channel);
      } catch (error) {
        if (failures === 0) log('the members of a channel could not be read yet', error);
        await clock.sleep(backoffMs(failures++, retry, clock));
        continue;
      }
      await this.#heldUpTo(snapshot);
      if (this.#state !== 'reading') break;
      if (!this.#readAgain && !this.#heldOverflowed && this.#fits(snapshot)) this.#begin(snapshot);
      else await clock.sleep(pauseMs);
    }
    this.#reading = undefined;
  }

  /**
   * A list that was read in steps shows some of the changes meanwhile and not others. It is the exact list once all of them
   * are applied, so they are waited for; if one was lost, the list will be read again.
   */
  async #heldUpTo({ epoch, upTo = 0, version }: Snapshot): Promise<void> {
    const { clock } = this.#ports;
    const deadline = clock.monotonic() + heldWithinMs;
    const isHeld = (): boolean => {
      const last = this.#held?.at(-1);
      return upTo <= version || (last?.epoch === epoch && (last.told.at(-1)?.version ?? 0) >= upTo);
    };
    while (!isHeld() && this.#state === 'reading' && !this.#readAgain) {
      if (clock.monotonic() > deadline) this.#readAgain = true;
      else await clock.sleep(pauseMs);
    }
  }

  /** Whether what is held follows on the snapshot. If not, one of the two is out of date, and the next will tell. */
  #fits({ epoch, version }: Snapshot): boolean {
    const held = this.#held ?? [];
    const [first] = held;
    if (first === undefined) return true;
    const isOfOneEpoch = held.every((each) => each.epoch === first.epoch);
    const isOfThisEpoch = first.epoch === epoch || version === 0;
    return isOfOneEpoch && isOfThisEpoch && (first.told[0]?.version ?? 0) <= version + 1;
  }

  #begin(snapshot: Snapshot): void {
    const { members } = snapshot;
    const inOrder = members.length < 2 ? members : members.toSorted(byTime);
    this.#members = undefined;
    for (const { connection, member } of inOrder) this.#set(connection, member);
    this.#epoch = snapshot.epoch;
    this.#version = snapshot.version;
    this.#text = undefined;
    this.#state = 'live';
    // Whoever counts by the list and by what follows it would count twice what the list shows already.
    const isWhole = this.#applyAll([]);
    this.#ports.read(this, snapshot, this.#isAwaited);
    this.#isAwaited = false;
    this.#wakeReached();
    if (!isWhole) void this.read();
  }

  // Waiting

  #isPast(epoch: string, version: number): boolean {
    if (this.#state !== 'live') return this.#state === 'closed';
    // A list without an epoch is of a channel in which nothing has changed yet.
    return version <= this.#version || (epoch !== this.#epoch && this.#epoch !== '');
  }

  #wakeReached(): void {
    if (this.#waiting !== undefined) this.#wake(this.#waiting);
  }

  #wake(waiting: readonly Waiting[]): void {
    const isPast = ({ epoch, version }: Waiting): boolean => this.#isPast(epoch, version);
    const left = waiting.filter((each) => !isPast(each));
    this.#waiting = left.length === 0 ? undefined : left;
    for (const each of waiting) if (!left.includes(each)) each.wake();
  }
}

function byTime(one: StoredMember, other: StoredMember): number {
  return sinceOf(one.member) - sinceOf(other.member);
}
