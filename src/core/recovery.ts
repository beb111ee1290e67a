// One subscriber catching up: pages of history until it meets what is live, and then, in one step, into the live flow.
//
//   0. with a snapshot, its rows are sent first; they are true at the position that everything else follows
//   1. from its creation on, live publications of the channel are held back for it (bounded)
//   2. history after the subscriber's position is read and sent, page by page, each page waiting for its socket, and all
//      of them in slices, so that a thousand that recover at once hold up nobody else
//   3. when a page reached the head, what is held with a higher offset follows, and the subscriber joins the channel
//
// If the hold overflows it is thrown away and step 2 goes on: history has the same publications. A gap is sent only
// when history no longer reaches back to the position, when the epoch changed, or when catching up takes too long.

import type { GapReason } from '../protocol/codes.ts';
import type { Position } from '../protocol/position.ts';
import type { Outlet } from './outlet.ts';
import type { Publication } from './publication.ts';
import type { MaybePromise } from './maybe-promise.ts';
import { dataBytes, type PageBudget } from './page-budget.ts';
import type { Snapshot } from './snapshot.ts';
import type { HistoryPage } from './sync-adapter.ts';

export interface RecoveryLimits {
  /** Publications held back per recovering subscription. */
  readonly holdMax: number;
  /** Bytes held back per recovering subscription, but one publication in any case. */
  readonly holdBytesMax: number;
  /** Publications read at once... */
  readonly pageSize: number;
  /** ...and bytes of them, but one in any case. */
  readonly pageBytesMax: number;
  /** Milliseconds after which a subscriber that still lags is given a gap and put live. */
  readonly timeoutMs: number;
}

export interface RecoveryPorts {
  /** The subscriber's connection, which does not hear what it asked not to hear. */
  readonly connection: string;
  readonly channel: string;
  read(since: Position): MaybePromise<HistoryPage>;
  /** Undefined when so many publications may be sent now, else resolves when they may. */
  slice(publications: number): Promise<void> | undefined;
  /** What waits for sockets, of all recoveries of this node. */
  readonly pages: PageBudget;
  /** Resolves when the outlet has room again; false when it is too slow to wait for. */
  room(outlet: Outlet): MaybePromise<boolean>;
  /** Where the channel stands on this node now. */
  head(): Position;
  /** Tells the subscriber, and counts, that it may have missed some. */
  gap(reason: GapReason, position: Position): void;
  /** Counts publications that the subscriber was sent. */
  sent(count: number): void;
  /** Counts a frame of rows that the subscriber was sent. */
  sentRows(): void;
  /** Makes the subscriber live; called in the same synchronous step in which it got the last that it lacked. */
  goLive(): void;
  /** A short while, for this node to catch up. */
  pause(): Promise<void>;
  monotonic(): number;
}

/** A place in no log: whoever goes on from there gets a gap. */
const nowhere: Position = { epoch: '', offset: 0 };
/** The socket is looked at each time it was given this much, or its share: a page of large publications is larger. */
export const roomEveryBytes = 128 << 10;
/** Publications sent without looking whether others wait. */
const sliceSize = 100;

export class Recovery {
  readonly #ports: RecoveryPorts;
  readonly #limits: RecoveryLimits;
  readonly #startedAt: number;
  #position: Position;
  /** Whose rows come first. */
  readonly #snapshot: Snapshot | undefined;
  /** Its frames that were not sent yet. */
  #framesLeft: number;
  #held: Publication[] = [];
  #heldBytes = 0;
  #overflowed = false;
  #cancelled = false;
  /** A gap that was found and not yet told; the position is already past it. */
  #gap: GapReason | undefined;
  /** The first page, if there was room to keep it until the subscriber is told that it is subscribed. */
  #first: HistoryPage | undefined;
  #firstBytes = 0;

  constructor(position: Position, ports: RecoveryPorts, limits: RecoveryLimits, snapshot?: Snapshot) {
    this.#position = position;
    this.#snapshot = snapshot;
    this.#framesLeft = snapshot?.frames.length ?? 0;
    this.#ports = ports;
    this.#limits = limits;
    this.#startedAt = ports.monotonic();
  }

  /**
   * Up to here the subscriber was sent everything, or told a gap: nowhere while a gap was found and not told, or while
   * rows are missing.
   */
  get position(): Position {
    return this.#gap === undefined && this.#framesLeft === 0 ? this.#position : nowhere;
  }

  /** A live publication of the channel, while the subscriber is not live yet. */
  hold(publication: Publication): void {
    if (this.#overflowed) return;
    this.#held.push(publication);
    this.#heldBytes += publication.data.length;
    const { holdMax, holdBytesMax } = this.#limits;
    const { length } = this.#held;
    if (length > holdMax || (length > 1 && this.#heldBytes > holdBytesMax)) this.#release(true);
  }

  /** The whole channel lost its place: this subscriber goes on from there. */
  jump(reason: GapReason, position: Position): void {
    this.#gap = reason;
    this.#position = position;
    this.#takeFirst();
    this.#release(false);
  }

  cancel(): void {
    this.#cancelled = true;
    this.#takeFirst();
    this.#release(false);
  }

  /** Reads the first page and answers whether the subscriber will get everything since its position. */
  async prepare(): Promise<boolean> {
    const { offset } = this.#position;
    if (offset === this.#ports.head().offset) return true;
    const page = await this.#ports.read(this.#position);
    if (this.#gap !== undefined) return false;
    if (!this.#cancelled) this.#keepFirst(page);
    const tells = (publication: Publication): boolean => publication.isGap && !this.#holds(publication);
    return page.gap === undefined && !page.publications.some(tells);
  }

  /** Sends what was missed and what was held, then goes live. Resolves false when it was cancelled or is too slow. */
  async run(outlet: Outlet): Promise<boolean> {
    const { pages } = this.#ports;
    pages.enter();
    try {
      return (await this.#sendRows(outlet)) && (await this.#catchUp(outlet));
    } finally {
      pages.leave();
    }
  }

  async #catchUp(outlet: Outlet): Promise<boolean> {
    while (!this.#cancelled) {
      this.#tellGap();
      const read = !this.#overflowed && this.#first === undefined;
      if (read && this.#meetsLive()) {
        this.#deliver(this.#held, outlet);
        // A connection that ran over its buffer just now is gone, and must not be counted as live.
        if (this.#cancelled) break;
        this.#ports.goLive();
        return true;
      }
      if (this.#ports.monotonic() - this.#startedAt > this.#limits.timeoutMs) {
        this.jump('overflow', this.#ports.head());
        continue;
      }
      if (read && this.#isAhead()) {
        await this.#ports.pause();
        continue;
      }
      const page = this.#takeFirst() ?? (await this.#nextPage());
      if (this.#cancelled) break;
      // A jump while the page was read made it void.
      if (this.#gap !== undefined) continue;
      const { offset } = this.#position;
      if (!(await this.#send(page, outlet))) return false;
      // History lags behind this node: to ask again at once would be to ask without end.
      if (this.#position.offset === offset && !this.#meetsLive()) await this.#ports.pause();
    }
    return false;
  }

  /** False when the subscriber is too slow, or left before the last frame. */
  async #sendRows(outlet: Outlet): Promise<boolean> {
    const { frames = [], position = nowhere } = this.#snapshot ?? {};
    for (const frame of frames) {
      const turn = this.#ports.slice(sliceSize);
      if (turn !== undefined) await turn;
      if (this.#cancelled) return false;
      this.#framesLeft--;
      outlet.snapshot(this.#ports.channel, frame, this.#framesLeft === 0 ? position : undefined);
      this.#ports.sentRows();
      const room = this.#ports.room(outlet);
      if (!(room instanceof Promise ? await room : room)) return false;
    }
    return true;
  }

  #holds(publication: Publication): boolean {
    return this.#snapshot?.holds(publication) === true;
  }

  #nextPage(): MaybePromise<HistoryPage> {
    // Emptied before the read, so that what arrives during it is held again and nothing falls between the two.
    if (this.#overflowed) this.#release(false);
    return this.#ports.read(this.#position);
  }

  #keepFirst(page: HistoryPage): void {
    const bytes = dataBytes(page.publications);
    const fits = this.#ports.pages.take(bytes);
    this.#firstBytes = fits ? bytes : 0;
    if (fits) this.#first = page;
    // Where a gap ends is what the subscriber is about to be told.
    else if (page.gap !== undefined) this.#first = { ...page, publications: page.publications.slice(0, 1) };
  }

  #takeFirst(): HistoryPage | undefined {
    const first = this.#first;
    if (first === undefined) return undefined;
    this.#first = undefined;
    this.#ports.pages.give(this.#firstBytes);
    return first;
  }

  /** False when the subscriber is too slow. */
  async #send(page: HistoryPage, outlet: Outlet): Promise<boolean> {
    if (page.gap !== undefined) {
      const first = page.publications[0];
      const offset = first === undefined ? page.head.offset : first.offset - 1;
      const head = this.#ports.head();
      this.#gap = page.gap;
      // Never past what this node has sent on: the live flow would bring lower offsets after it.
      this.#position = { epoch: page.head.epoch, offset: Math.min(offset, head.offset) };
      this.#tellGap();
    }
    let rest = page.publications;
    while (rest.length > 0) {
      const turn = this.#ports.slice(Math.min(rest.length, sliceSize));
      if (turn !== undefined) await turn;
      if (this.#cancelled || this.#gap !== undefined) break;
      const count = this.#sendSome(rest, outlet);
      rest = rest.slice(count);
      const room = this.#ports.room(outlet);
      if (room instanceof Promise) {
        const isKept = await this.#waitWith(rest, room);
        if (isKept === undefined) return false;
        if (!isKept) break;
      } else if (!room) {
        return false;
      }
      if (count === 0) break;
    }
    return true;
  }

  /** Undefined when the subscriber is too slow; otherwise whether the rest of the page was kept while its socket took in. */
  async #waitWith(rest: readonly Publication[], room: Promise<boolean>): Promise<boolean | undefined> {
    const { pages } = this.#ports;
    const bytes = dataBytes(rest);
    const isKept = pages.take(bytes);
    try {
      return (await room) ? isKept : undefined;
    } finally {
      if (isKept) pages.give(bytes);
    }
  }

  /** Sends as many as go without looking at the socket; answers how many those were. */
  #sendSome(publications: readonly Publication[], outlet: Outlet): number {
    const head = this.#ports.head();
    const bytesMax = Math.min(roomEveryBytes, this.#ports.pages.shareBytes);
    let bytes = 0;
    let count = 0;
    for (const { offset, data } of publications) {
      // The log may be ahead of this node; what it has not sent on yet will be held, so it would come twice.
      if (count === sliceSize || bytes > bytesMax || offset > head.offset) break;
      bytes += data.length;
      count++;
    }
    this.#deliver(publications.slice(0, count), outlet);
    return count;
  }

  /** Whether what is held, or the live flow if nothing is, begins right after the position. */
  #meetsLive(): boolean {
    const head = this.#ports.head();
    const { epoch, offset } = this.#position;
    return epoch === head.epoch && offset <= head.offset && offset >= head.offset - this.#held.length;
  }

  /** The subscriber comes from a node that was faster than this one: live now, it would hear some of it twice. */
  #isAhead(): boolean {
    const head = this.#ports.head();
    return this.#position.epoch === head.epoch && this.#position.offset > head.offset;
  }

  /** In ascending order; leaves out what the subscriber has, and what it asked not to hear. */
  #deliver(publications: readonly Publication[], outlet: Outlet): void {
    const { connection } = this.#ports;
    let fresh: Publication[] = [];
    for (const publication of publications) {
      if (publication.epoch !== this.#position.epoch || publication.offset <= this.#position.offset) continue;
      this.#position = { epoch: publication.epoch, offset: publication.offset };
      if (this.#holds(publication)) continue;
      if (publication.isGap) {
        // What came before it goes out before it.
        this.#hand(fresh, outlet);
        fresh = [];
        this.#ports.gap('trimmed', this.#position);
      } else if (publication.except !== connection) fresh.push(publication);
    }
    this.#hand(fresh, outlet);
  }

  #hand(fresh: readonly Publication[], outlet: Outlet): void {
    if (fresh.length === 0) return;
    outlet.deliver(fresh);
    this.#ports.sent(fresh.length);
  }

  #tellGap(): void {
    if (this.#gap === undefined) return;
    this.#ports.gap(this.#gap, this.#position);
    this.#gap = undefined;
  }

  #release(overflowed: boolean): void {
    this.#held = [];
    this.#heldBytes = 0;
    this.#overflowed = overflowed;
  }
}
