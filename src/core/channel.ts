// One channel on this node: who is subscribed, where the node stands in its log, and what to do when the log and the
// node disagree. The position is kept here once, so no connection has to check what it is sent.
//
//   opening   the sync layer is being asked; publications that arrive already are held
//   live      each publication is the next one and is fanned out at once
//   filling   a hole was found; later publications are held until history has filled it

import type { GapReason } from '../protocol/codes.ts';
import type { Position } from '../protocol/position.ts';
import type { Publication } from './publication.ts';
import type { Recovery } from './recovery.ts';
import type { ChannelRule } from '../rules/rules.ts';
import type { Session } from './session.ts';
import type { MaybePromise } from './maybe-promise.ts';
import type { HistoryPage } from './sync-adapter.ts';

export interface ChannelPorts {
  /** Hands a publication to every live connection of the channel. */
  fanOut(channel: Channel, publication: Publication): void;
  /** Tells every live connection that the channel's position is now another. */
  gap(channel: Channel, reason: GapReason): void;
  /** Reads what this node lacks, past the rule's limits if it is still stored. */
  read(channel: Channel, since: Position): MaybePromise<HistoryPage>;
  /** Waits before another try to fill a hole; grows with `attempt`. */
  pause(attempt: number): Promise<void>;
  failed(error: unknown): void;
}

export class Channel {
  readonly name: string;
  readonly rule: ChannelRule;
  readonly sessions = new Set<Session>();
  /** Connections that the transports' fan-out reaches. */
  liveWebsocket = 0;
  liveSse = 0;
  /** Bytes fanned out to each live connection since the sockets were last looked at. */
  bytesSinceSettled = 0;
  recoveries: Set<Recovery> | undefined;
  /** Set while the sync layer is asked for the channel. */
  opening: Promise<Channel> | undefined;
  #epoch = '';
  #offset = 0;
  #held: Publication[] | undefined;
  #heldOverflowed = false;
  /** A head was told while a page was on its way, which may have been read too early to reach it. */
  #behind = false;
  /** No log goes back to an epoch that it left: what still arrives of this one is late, and history knows. */
  #leftEpoch: string | undefined;
  #closed = false;
  readonly #ports: ChannelPorts;
  readonly #holdMax: number;

  constructor(name: string, rule: ChannelRule, ports: ChannelPorts, holdMax: number) {
    this.name = name;
    this.rule = rule;
    this.#ports = ports;
    this.#holdMax = holdMax;
    if (rule.recoverable) this.#held = [];
  }

  get epoch(): string {
    return this.#epoch;
  }

  get offset(): number {
    return this.#offset;
  }

  get position(): Position {
    return { epoch: this.#epoch, offset: this.#offset };
  }

  /** The sync layer answered: the node is live from `head` on. */
  opened(head: Position | undefined): void {
    this.opening = undefined;
    if (head === undefined) return;
    this.#epoch = head.epoch;
    this.#offset = head.offset;
    const behind = this.#behind;
    this.#releaseHeld();
    if (behind) this.#catchUp();
  }

  /** Nobody is subscribed any more: what still runs for the channel ends by itself. */
  close(): void {
    this.#closed = true;
    this.#held = undefined;
  }

  /** A publication from the sync layer. */
  accept(publication: Publication): void {
    if (!this.rule.recoverable) {
      this.#ports.fanOut(this, publication);
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
    if (publication.epoch !== this.#epoch) {
      this.#jump('epoch_changed', { epoch: publication.epoch, offset: publication.offset - 1 });
    }
    if (publication.offset <= this.#offset) return;
    if (publication.offset > this.#offset + 1) {
      this.#catchUp();
      this.#hold(publication);
      return;
    }
    this.#offset = publication.offset;
    this.#ports.fanOut(this, publication);
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
    if (head.epoch !== this.#epoch || head.offset !== this.#offset) this.#catchUp();
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
    if (position.epoch !== this.#epoch) {
      this.#leftEpoch = this.#epoch;
      this.#held = this.#held?.filter((publication) => publication.epoch === position.epoch);
    }
    this.#epoch = position.epoch;
    this.#offset = position.offset;
    for (const recovery of this.recoveries ?? []) recovery.jump(reason, position);
    this.#ports.gap(this, reason);
  }

  #hold(publication: Publication): void {
    const held = this.#held;
    if (held === undefined || this.#heldOverflowed) return;
    if (held.length < this.#holdMax) {
      held.push(publication);
      return;
    }
    // History has them as well: the hole is only read further.
    this.#held = [];
    this.#heldOverflowed = true;
  }

  /** Sends what was held in order. A new hole inside it starts another fill. */
  #releaseHeld(): void {
    const held = this.#held ?? [];
    const overflowed = this.#heldOverflowed;
    this.#held = undefined;
    this.#heldOverflowed = false;
    if (overflowed) {
      this.#catchUp();
      return;
    }
    for (const publication of held) this.accept(publication);
  }

  async #fill(): Promise<void> {
    for (let attempt = 0; !this.#closed;) {
      // Emptied before the read: what arrives during it is held again.
      if (this.#heldOverflowed) {
        this.#held = [];
        this.#heldOverflowed = false;
      }
      this.#behind = false;
      const { epoch, offset } = this;
      let page: HistoryPage;
      try {
        page = await this.#ports.read(this, { epoch, offset });
      } catch (error) {
        // The sync layer is away. It tells heads when it is back, but the hole must be filled even if it does not.
        this.#ports.failed(error);
        await this.#ports.pause(attempt++);
        continue;
      }
      if (this.#closed) return;
      // A new epoch was told during the read, which may have been answered by an earlier one.
      if (this.#epoch !== epoch) continue;
      this.#takePage(page);
      if (this.#behind) continue;
      if (page.complete || page.gap === 'epoch_changed') break;
      // A page that brings nothing and does not end either would be asked for again at once, and for ever.
      if (this.#epoch === epoch && this.#offset === offset) await this.#ports.pause(attempt++);
      else attempt = 0;
    }
    if (!this.#closed) this.#releaseHeld();
  }

  #takePage(page: HistoryPage): void {
    if (page.gap !== undefined) {
      const first = page.publications[0];
      const offset = page.gap === 'epoch_changed' || first === undefined ? page.head.offset : first.offset - 1;
      this.#jump(page.gap, { epoch: page.head.epoch, offset });
    }
    for (const publication of page.publications) {
      if (publication.epoch !== this.#epoch || publication.offset !== this.#offset + 1) continue;
      this.#offset = publication.offset;
      this.#ports.fanOut(this, publication);
    }
  }
}
