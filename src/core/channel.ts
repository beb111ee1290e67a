// One channel on this node: where the node stands in its log, what to do when the log and the node disagree, and the fan-out
// to the members. The position is kept here once, so no connection has to check what it is sent.
//
//   opening   the sync layer is being asked; publications that arrive already are held
//   live      each publication is the next one and is fanned out at once
//   filling   a hole was found; later publications are held until history has filled it

import type { GapReason } from '../protocol/codes.ts';
import type { Position } from '../protocol/position.ts';
import type { ChannelRule } from '../rules/rules.ts';
import { backoffMs } from '../time/backoff.ts';
import type { MaybePromise } from './maybe-promise.ts';
import { MissedHistory, nodeReader, type MissedHistoryPorts, type ReadChannel } from './history-reads.ts';
import { Members, type Home, type MembersPorts } from './members.ts';
import type { Publication } from './publication.ts';
import type { SnapshotChannel } from './snapshot.ts';
import { RealtimeError } from '../protocol/realtime-error.ts';
import type { HistoryPage } from './sync-adapter.ts';
import type { Unsettled } from './unsettled.ts';

/** What all channels of a node share. */
export interface ChannelPorts extends MembersPorts, MissedHistoryPorts {
  /** Publications held while a hole is filled, or while the sync layer is asked for the channel. */
  readonly holdMax: number;
  /** What was fanned out since sockets were last looked at. */
  readonly unsettled: Unsettled<Channel>;
  readonly log: (message: string, error: unknown) => void;
}

/** Publications read at once to fill a hole. */
const fillPageSize = 500;
/** How long the node may take to reach the log's head, and how often it looks whether it has. */
const reachMsMax = 5_000;
const reachLookMs = 2;
/** What was published and is lost to the log may be on its way to this node for so long after the last that arrived. */
const lateMsMax = 1_000;

export class Channel implements Home, ReadChannel, SnapshotChannel {
  readonly name: string;
  readonly rule: ChannelRule;
  readonly members: Members;
  /** Set while the sync layer is asked for the channel. */
  opening: Promise<Channel> | undefined;
  /** The sync layer has answered. */
  wasOpened = false;
  #position: Position = { epoch: '', offset: 0 };
  #held: Publication[] | undefined;
  #heldOverflowed = false;
  /** A head was told while a page was on its way, which may have been read too early to reach it. */
  #behind = false;
  /** No log goes back to an epoch that it left: what still arrives of this one is late, and history knows. */
  #leftEpoch: string | undefined;
  #closed = false;
  /** Once somebody missed something. */
  #missed: MissedHistory | undefined;
  readonly #ports: ChannelPorts;

  constructor(name: string, rule: ChannelRule, ports: ChannelPorts) {
    this.name = name;
    this.rule = rule;
    this.#ports = ports;
    this.members = new Members(this, ports);
    if (rule.recoverable) this.#held = [];
  }

  get epoch(): string {
    return this.#position.epoch;
  }

  get offset(): number {
    return this.#position.offset;
  }

  get position(): Position {
    return this.#position;
  }

  /** Nobody is subscribed any more. */
  get isClosed(): boolean {
    return this.#closed;
  }

  get missed(): MissedHistory {
    return (this.#missed ??= new MissedHistory(this, this.#ports));
  }

  /** The sync layer answered: the node is live from `head` on. */
  opened(head: Position | undefined): void {
    this.opening = undefined;
    this.wasOpened = true;
    if (head === undefined) return;
    this.#position = head;
    this.#ports.kept?.opened(this.name, head);
    const behind = this.#behind;
    this.#releaseHeld();
    if (behind) this.#catchUp();
  }

  /** Nobody is subscribed any more: what still runs for the channel ends by itself. */
  close(): void {
    this.#closed = true;
    this.#held = undefined;
    this.#ports.kept?.closed(this.name);
  }

  /** A publication from the sync layer. */
  accept(publication: Publication): void {
    if (!this.rule.recoverable) {
      this.#tell(publication);
      return;
    }
    if (this.#held !== undefined) {
      this.#hold(publication);
      return;
    }
    if (publication.epoch === this.#leftEpoch) {
      this.#catchUp();
      return;
    }
    if (publication.epoch !== this.epoch) {
      this.#jump('epoch_changed', { epoch: publication.epoch, offset: publication.offset - 1 });
    }
    if (publication.offset <= this.offset) return;
    if (publication.offset > this.offset + 1) {
      this.#catchUp();
      this.#hold(publication);
      return;
    }
    this.#advance(publication);
  }

  /**
   * The log's head was here. One that does not follow from this node's position starts a look at history, which alone
   * decides: a head may have been overtaken by a page that was read after it.
   */
  reachHead(head: Position): void {
    if (!this.rule.recoverable || this.#closed) return;
    if (this.opening !== undefined) {
      // The answer to the opening may be older than this head.
      this.#behind = true;
      return;
    }
    if (head.epoch !== this.epoch || head.offset !== this.offset) this.#catchUp();
  }

  async reachLog(): Promise<Position> {
    const { reads, clock } = this.#ports;
    const until = clock.monotonic() + reachMsMax;
    const { head } = await reads.read(this.name, this.rule, { limit: 1 }, nodeReader);
    while (this.epoch !== head.epoch || this.offset < head.offset) {
      if (this.#closed || clock.monotonic() > until) throw new RealtimeError('unavailable');
      this.reachHead(head);
      await clock.sleep(reachLookMs);
    }
    return this.#position;
  }

  readStored(since: Position): MaybePromise<HistoryPage> {
    return this.#ports.reads.read(this.name, this.rule, { since, limit: fillPageSize }, nodeReader);
  }

  /** Reads what this node lacks; if it is being read already, once more after that. */
  #catchUp(): void {
    if (this.#held !== undefined) {
      this.#behind = true;
      return;
    }
    this.#held = [];
    void this.#fill();
  }

  #jump(reason: GapReason, position: Position): void {
    if (position.epoch !== this.epoch) {
      this.#leftEpoch = this.epoch;
      this.#held = this.#held?.filter((publication) => publication.epoch === position.epoch);
    }
    this.#position = position;
    this.#ports.kept?.begin(this.name, position);
    for (const recovery of this.members.recoveries ?? []) recovery.jump(reason, position);
    this.#tellGap(reason);
  }

  #hold(publication: Publication): void {
    const held = this.#held;
    if (held === undefined || this.#heldOverflowed) return;
    if (held.length < this.#ports.holdMax) {
      held.push(publication);
      return;
    }
    // History has the later ones: the hole is only read further.
    this.#heldOverflowed = true;
  }

  /** Sends what was held in order. A new hole inside it starts another fill. */
  #releaseHeld(): void {
    const held = this.#held ?? [];
    const overflowed = this.#heldOverflowed;
    this.#held = undefined;
    this.#heldOverflowed = false;
    for (const publication of held) this.accept(publication);
    if (overflowed) this.#catchUp();
  }

  async #fill(): Promise<void> {
    for (let attempt = 0; !this.#closed;) {
      // Emptied before the read: what arrives during it is held again.
      if (this.#heldOverflowed) {
        this.#held = [];
        this.#heldOverflowed = false;
      }
      this.#behind = false;
      const since = this.#position;
      let page: HistoryPage;
      try {
        page = await this.#ports.reads.read(this.name, this.rule, { since, limit: fillPageSize }, nodeReader);
      } catch (error) {
        // The sync layer is away. It tells heads when it is back, but the hole must be filled even if it does not.
        this.#ports.log('a hole in a channel could not be filled yet', error);
        await this.#pause(attempt++);
        continue;
      }
      const isTrimmed = page.gap === 'trimmed' && page.head.epoch === this.epoch;
      if (isTrimmed && (await this.#isArriving())) continue;
      if (this.#closed) return;
      this.#takePage(page);
      if (this.#behind) continue;
      if (page.complete || page.gap === 'epoch_changed') break;
      // A page that brings nothing and does not end either would be asked for again at once, and for ever.
      if (this.epoch === since.epoch && this.offset === since.offset) await this.#pause(attempt++);
      else attempt = 0;
    }
    if (!this.#closed) this.#releaseHeld();
  }

  /**
   * A log that keeps little may have forgotten what is still on its way to a node that is busy. Answers whether something
   * of that came, with which the channel went on; false once what comes shows that the rest is lost, or nothing comes.
   */
  async #isArriving(): Promise<boolean> {
    const { clock } = this.#ports;
    const until = clock.monotonic() + lateMsMax;
    const { offset } = this.#position;
    for (;;) {
      const isHole = this.#takeHeld();
      if (this.offset > offset) return true;
      if (this.#closed || isHole || clock.monotonic() >= until) return false;
      await clock.sleep(reachLookMs);
    }
  }

  /** Goes on with what is held and comes next. Answers whether what is held then begins later. */
  #takeHeld(): boolean {
    const held = this.#held ?? [];
    let taken = 0;
    for (const publication of held) {
      if (publication.epoch !== this.epoch || publication.offset > this.offset + 1) break;
      if (publication.offset === this.offset + 1) this.#advance(publication);
      taken++;
    }
    held.splice(0, taken);
    return held.length > 0;
  }

  #takePage(page: HistoryPage): void {
    if (page.gap !== undefined) {
      const first = page.publications[0];
      const offset = page.gap === 'epoch_changed' || first === undefined ? page.head.offset : first.offset - 1;
      this.#jump(page.gap, { epoch: page.head.epoch, offset });
    }
    for (const publication of page.publications) {
      if (publication.epoch === this.epoch && publication.offset === this.offset + 1) this.#advance(publication);
    }
  }

  /** The publication is the next one. */
  #advance(publication: Publication): void {
    this.#position = { epoch: publication.epoch, offset: publication.offset };
    this.#ports.kept?.add(this.name, publication, this.rule.historySize);
    this.#tell(publication);
  }

  // Fan-out

  #tell(publication: Publication): void {
    const { recoveries } = this.members;
    if (recoveries !== undefined) for (const recovery of recoveries) recovery.hold(publication);
    // In its place the log has a gap. Subscribers that recover meet it there.
    if (publication.isGap) this.#tellGap('trimmed');
    else this.#fanOut(publication);
  }

  #fanOut(publication: Publication): void {
    const { observer, clock, log, unsettled } = this.#ports;
    let reached = 0;
    for (const { fanout, count } of this.members.liveByTransport) {
      if (count === 0) continue;
      try {
        reached += count - fanout.publication(publication);
      } catch (error) {
        observer.broadcastFailed();
        log('a publication could not be fanned out', error);
      }
    }
    if (reached === 0) return;
    unsettled.add(this, publication.data.length);
    observer.delivered(this.name, reached, Math.max(0, clock.now() - publication.at) / 1000);
  }

  /** All live members are told where the channel stands now. */
  #tellGap(reason: GapReason): void {
    const { live, liveByTransport } = this.members;
    if (live === 0) return;
    this.#ports.observer.lost(reason, live);
    const gap = { channel: this.name, position: this.#position, reason };
    for (const { fanout, count } of liveByTransport) if (count > 0) fanout.gap(gap);
  }

  #pause(attempt: number): Promise<void> {
    const { clock } = this.#ports;
    return clock.sleep(backoffMs(attempt, { firstMs: 50, maxMs: 5_000 }, clock));
  }
}
