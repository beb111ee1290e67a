// The members of this node: what it wants the store to hold, and how the store comes to hold it.
//
// Each member that changed is dirty until the store has applied what is wanted of it by then. Dirty ones are applied in
// batches, one batch at a time, so that what gathers meanwhile goes together. A store that is away changes nothing here:
// the members stay dirty and are applied when it is back. Applying is repeatable, so nothing has to be known of how far
// a batch got.

import type { MaybePromise } from '../core/maybe-promise.ts';
import { RealtimeError } from '../protocol/realtime-error.ts';
import { backoffMs } from '../time/backoff.ts';
import type { Clock } from '../time/clock.ts';
import { createMember, type OwnMember } from './member.ts';
import { memberOf, membersOf, sizeOf, withMember, withoutMember, type MemberList } from './member-list.ts';
import type { Applied, Change } from './store.ts';

interface Dirty {
  readonly channel: string;
  readonly connection: string;
  /** Of a member that enters for the first time; 0 for one that was let in before. */
  membersMax: number;
  readonly waiting: { readonly resolve: (applied: Applied) => void; readonly reject: (error: unknown) => void }[];
}

export interface LedgerPorts {
  /** In the order of the changes. Rejects with `unavailable`. */
  readonly apply: (changes: readonly Change[]) => Promise<readonly Applied[]>;
  /** Undefined where the answer has to be waited for: then nothing was applied. */
  readonly applyAtOnce: (change: Change) => Applied | undefined;
  readonly clock: Clock;
  readonly log: (message: string, error: unknown) => void;
}

/** So that a batch is a matter of milliseconds also for a store that takes the members one by one. */
const batchMax = 200;
const retry = { firstMs: 100, maxMs: 2_000 };

export class Ledger {
  readonly #ports: LedgerPorts;
  readonly #here = new Map<string, NonNullable<MemberList<OwnMember>>>();
  /** They leave when their time is over, with the number of their parting: who comes back may part again. */
  readonly #parting = new Map<OwnMember, number>();
  readonly #dirty = new Map<string, Dirty>();
  #applying: Promise<void> | undefined;
  #members = 0;
  #partings = 0;
  /** The store did not answer lately, and is being tried. */
  #isAway = false;
  #closed = false;

  constructor(ports: LedgerPorts) {
    this.#ports = ports;
  }

  /** Members of this node that are connected. */
  get members(): number {
    return this.#members;
  }

  /** Whether the connection is a member, and has not parted. */
  has(channel: string, connection: string): boolean {
    const own = this.own(channel, connection);
    return own !== undefined && !this.#parting.has(own);
  }

  /** Whether it has not come back since that parting. */
  isParting(channel: string, connection: string, parting: number): boolean {
    const own = this.own(channel, connection);
    return own !== undefined && this.#parting.get(own) === parting;
  }

  /** A member of this node, also one that parts. */
  own(channel: string, connection: string): OwnMember | undefined {
    return memberOf(this.#here.get(channel), connection);
  }

  /** Which channels anything of this node is in, or on its way in or out. To be asked at once. */
  needs(): (channel: string) => boolean {
    const dirty = new Set<string>();
    for (const { channel } of this.#dirty.values()) dirty.add(channel);
    return (channel) => this.#here.has(channel) || dirty.has(channel);
  }

  /** Members of this node in the channel, those that part among them. */
  count(channel: string): number {
    return sizeOf(this.#here.get(channel));
  }

  /**
   * Resolves with what the store says. Rejects with `unavailable` when it says nothing: then one that was no member is
   * none, and one that was has the data that it had.
   */
  enter(
    channel: string,
    connection: string,
    user: string | null,
    data: string,
    membersMax: number,
  ): MaybePromise<Applied> {
    // What was not tried needs no undoing: an outage must not gather what came and went in it.
    if (this.#isAway) throw new RealtimeError('unavailable');
    const before = this.own(channel, connection);
    const member =
      before === undefined
        ? this.#add(channel, createMember(connection, user, data))
        : this.#replace(channel, before, data);
    // Nothing is on its way that this would overtake.
    if (this.#applying === undefined && this.#dirty.size === 0) {
      const applied = this.#ports.applyAtOnce({ kind: 'enter', channel, connection, member, membersMax });
      if (applied?.isFull === true) this.#remove(channel, connection);
      if (applied !== undefined) return applied;
    }
    return this.#enterInTurn(channel, connection, before, membersMax);
  }

  async #enterInTurn(
    channel: string,
    connection: string,
    before: OwnMember | undefined,
    membersMax: number,
  ): Promise<Applied> {
    try {
      const applied = await this.#wait(channel, connection, membersMax);
      if (applied.isFull) this.#remove(channel, connection);
      return applied;
    } catch (error) {
      const own = this.own(channel, connection);
      if (before === undefined) this.leave(channel, connection);
      else if (own !== undefined) this.#keep(channel, own, before.data);
      this.#touch(channel, connection);
      throw error;
    }
  }

  /** The number of the parting; undefined for one that is no member, or parts already. */
  part(channel: string, connection: string): number | undefined {
    const own = this.own(channel, connection);
    if (own === undefined || this.#parting.has(own)) return undefined;
    const parting = ++this.#partings;
    this.#parting.set(own, parting);
    this.#members--;
    this.#touch(channel, connection);
    return parting;
  }

  leave(channel: string, connection: string): void {
    if (this.#remove(channel, connection)) this.#touch(channel, connection);
  }

  /**
   * The store's list of the channel was read, in which these are members of this node. What differs from what is wanted
   * is applied, unless it is on its way already.
   */
  compare(channel: string, listed: ReadonlySet<string>): void {
    for (const own of membersOf(this.#here.get(channel))) {
      if (!this.#parting.has(own) && !listed.has(own.connection)) this.#touch(channel, own.connection);
    }
    for (const connection of listed) {
      if (this.own(channel, connection) === undefined) this.#touch(channel, connection);
    }
  }

  /** The store may know none of them. */
  touchAll(): void {
    for (const [channel, theirs] of this.#here)
      for (const { connection } of membersOf(theirs)) this.#touch(channel, connection);
  }

  /** Resolves when the store has applied everything, or at the next failure. Never rejects. */
  async settled(): Promise<void> {
    await this.#applying;
  }

  /** What is left is given up. Resolves when nothing is under way any more. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#applying;
  }

  #add(channel: string, own: OwnMember): OwnMember {
    this.#set(channel, own);
    this.#members++;
    return own;
  }

  /** One that parts is back. */
  #replace(channel: string, own: OwnMember, data: string): OwnMember {
    if (this.#parting.delete(own)) this.#members++;
    return this.#keep(channel, own, data);
  }

  /** A list may still have it as it was. */
  #keep(channel: string, own: OwnMember, data: string): OwnMember {
    if (own.data === data) return own;
    const kept = { ...own, data };
    const parting = this.#parting.get(own);
    if (parting !== undefined) this.#parting.set(kept, parting);
    this.#parting.delete(own);
    this.#set(channel, kept);
    return kept;
  }

  #set(channel: string, own: OwnMember): void {
    this.#here.set(channel, withMember(this.#here.get(channel), own));
  }

  #remove(channel: string, connection: string): boolean {
    const own = this.own(channel, connection);
    if (own === undefined) return false;
    if (!this.#parting.delete(own)) this.#members--;
    const others = withoutMember(this.#here.get(channel), connection);
    if (others === undefined) this.#here.delete(channel);
    else this.#here.set(channel, others);
    return true;
  }

  // What is dirty

  #wait(channel: string, connection: string, membersMax: number): Promise<Applied> {
    return new Promise((resolve, reject) => {
      const dirty = this.#touch(channel, connection);
      dirty.membersMax = membersMax;
      dirty.waiting.push({ resolve, reject });
    });
  }

  #touch(channel: string, connection: string): Dirty {
    const key = `${channel} ${connection}`;
    let dirty = this.#dirty.get(key);
    if (dirty === undefined) {
      dirty = { channel, connection, membersMax: 0, waiting: [] };
      this.#dirty.set(key, dirty);
    }
    if (!this.#closed) this.#applying ??= this.#applyAll();
    return dirty;
  }

  async #applyAll(): Promise<void> {
    const { clock, log } = this.#ports;
    // What the same tick changes goes into the first batch.
    await Promise.resolve();
    for (let failures = 0; this.#dirty.size > 0 && !this.#closed;) {
      try {
        await this.#applySome();
        failures = 0;
        this.#isAway = false;
      } catch (error) {
        this.#isAway = true;
        if (failures === 0) log('presence could not be stored yet', error);
        await clock.sleep(backoffMs(failures++, retry, clock));
      }
    }
    this.#applying = undefined;
    for (const { waiting } of this.#dirty.values()) {
      for (const { reject } of waiting) reject(new RealtimeError('shutting_down'));
    }
  }

  async #applySome(): Promise<void> {
    const batch: Dirty[] = [];
    for (const [key, dirty] of this.#dirty) {
      if (batch.length === batchMax) break;
      batch.push(dirty);
      this.#dirty.delete(key);
    }
    let answers: readonly Applied[];
    try {
      answers = await this.#ports.apply(batch.map((dirty) => this.#changeOf(dirty)));
    } catch (error) {
      // Nobody waits for a store that is away; what is wanted is tried again all the same.
      for (const { waiting } of batch) for (const { reject } of waiting) reject(error);
      for (const { channel, connection } of batch)
        this.#dirty.set(`${channel} ${connection}`, this.#kept(channel, connection));
      throw error;
    }
    batch.forEach(({ waiting }, index) => {
      const applied = answers[index];
      if (applied === undefined) throw new Error('the store left a change unanswered');
      for (const { resolve } of waiting) resolve(applied);
    });
  }

  /** What waits for a member already, or a new entry for it. */
  #kept(channel: string, connection: string): Dirty {
    return this.#dirty.get(`${channel} ${connection}`) ?? { channel, connection, membersMax: 0, waiting: [] };
  }

  #changeOf({ channel, connection, membersMax }: Dirty): Change {
    const own = this.own(channel, connection);
    if (own === undefined) return { kind: 'leave', channel, connection };
    if (this.#parting.has(own)) return { kind: 'part', channel, connection };
    return { kind: 'enter', channel, connection, member: own, membersMax };
  }
}
