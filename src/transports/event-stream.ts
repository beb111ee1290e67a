// One EventSource connection: its place in each channel, and its way out.
//
// A stream is alone until it is live on all of its channels: what it recovers is written to it, with a cursor of its
// own. Then it joins the group of all streams with the same channels, whose events and cursors are the same bytes.

import type { Session } from '../core/session.ts';
import type { Gap, Outlet } from '../core/outlet.ts';
import type { Publication } from '../core/publication.ts';
import { closeCodes } from '../protocol/codes.ts';
import { CursorWriter } from '../protocol/cursor.ts';
import { encodeFrame, type SubscriptionState } from '../protocol/frames.ts';
import type { Position } from '../protocol/position.ts';
import { sseEnd, sseEvent, sseHead } from '../protocol/sse.ts';
import { slowReader } from './connection-log.ts';
import { keepAliveSeconds, sse, type EventFanout, type FannedOut } from './event-fanout.ts';
import { gapFrame } from './gap-frame.ts';
import { frameChunk, gzipEnd, gzipHeader, SharedChunk } from './shared-chunk.ts';

const none: FannedOut['presences'] = [];

/** One object for all streams: counts what is queued in bytes, so that `desiredSize` tells how far a reader lags. */
export const byteStrategy: QueuingStrategy<Uint8Array> = {
  highWaterMark: 64 << 10,
  size: (chunk) => chunk?.byteLength ?? 0,
};

/** A reader may lag by this much more than the limit before it is cut off. */
const lookEveryBytes = 16 << 10;

/**
 * Data of so many characters are not copied for each stream that recovers them: only what stands before them differs.
 * A hundred streams that caught up on large messages at once cost a node half a gigabyte of copies.
 */
const sharedDataMin = 8 << 10;

/** Fewer are made as fast as they are found. */
const sharedCountMin = 4;

function isSmall({ data }: Publication): boolean {
  return data.length < sharedDataMin;
}

/** What many streams have in common: one object for all of them, as each field of a stream is there for each stream. */
export interface StreamKind {
  readonly fanout: EventFanout;
  /** After how long its browser comes back. */
  readonly retryMs: () => number;
  /** Its keep-alives are events, which a page can see. */
  readonly wantsPings: boolean;
  /** What it is sent is compressed by gzip. */
  readonly compresses: boolean;
}

/** Also the underlying source of its ReadableStream, whose methods `start` and `cancel` are. */
export class EventStream implements Outlet, FannedOut, Bun.UnderlyingSource<Uint8Array> {
  readonly #kind: StreamKind;
  channels: readonly string[];
  presences: FannedOut['presences'] = none;
  /** Until the stream is read, what it is sent waits here. */
  #waiting: Uint8Array[] | undefined;
  #controller: ReadableStreamDefaultController<Uint8Array> | undefined;
  /** Of a stream that is alone; a group has its own. */
  #cursor: CursorWriter | undefined;
  /** Where the client stood in channels that it recovers: its cursor must not run ahead of what it is sent. */
  #resumed: Map<string, Position> | undefined;
  /** Channels whose rows are not sent yet: no cursor may say that the client has them. */
  #awaited: Set<string> | undefined;
  #joined = 0;
  /** What it was sent before its welcome, which is its first event; undefined from then on. */
  #early: string | undefined = '';
  /** Written since it was last asked how far the reader lags: asking costs, and few bytes change little. */
  #unseenBytes = 0;
  #session: Session | undefined;
  #ended = false;

  constructor(channels: readonly string[], kind: StreamKind) {
    this.channels = channels;
    this.#kind = kind;
    this.#waiting = kind.compresses ? [gzipHeader] : [];
  }

  get transport(): string {
    return sse;
  }

  get takesCommands(): boolean {
    return false;
  }

  get wantsPings(): boolean {
    return this.#kind.wantsPings;
  }

  get #fanout(): EventFanout {
    return this.#kind.fanout;
  }

  attach(session: Session): void {
    this.#session = session;
  }

  get ended(): boolean {
    return this.#ended;
  }

  // Called by the runtime

  start(controller: ReadableStreamDefaultController<Uint8Array>): void {
    this.#controller = controller;
    const waiting = this.#waiting ?? [];
    this.#waiting = undefined;
    for (const chunk of waiting) controller.enqueue(chunk);
    if (this.#ended) controller.close();
  }

  cancel(): void {
    this.end(1006);
  }

  /** The connection is gone, or shall be. Idempotent. */
  end(code: number, reason = ''): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#fanout.remove(this);
    this.#session?.end(code, reason);
    this.#session = undefined;
    this.#waiting = undefined;
  }

  write(shared: SharedChunk): void {
    this.#look();
    this.#push(shared);
  }

  /** Before what belongs together, as a WebSocket's is: one event may be larger than all that may wait. */
  #look(): void {
    if (this.#ended || this.#controller === undefined || this.#unseenBytes < lookEveryBytes) return;
    this.#unseenBytes = 0;
    if (this.bufferedBytes() > this.#fanout.bufferedBytesMax) this.terminate();
  }

  #push(shared: SharedChunk): void {
    if (this.#ended) return;
    const chunk = this.#kind.compresses ? shared.compressed : shared.plain;
    const controller = this.#controller;
    if (controller === undefined) {
      this.#waiting?.push(chunk);
      return;
    }
    this.#unseenBytes += chunk.byteLength;
    try {
      controller.enqueue(chunk);
    } catch {
      // The runtime has closed the stream and has not told it yet.
      this.end(1006);
    }
  }

  // Called by the hub

  send(type: string, frame: string): void {
    const event = sseEvent({ event: type, data: frame });
    if (this.#early === undefined) this.#writeText(event);
    else if (this.#early.length > this.#fanout.bufferedBytesMax) this.terminate();
    else this.#early += event;
    // Nothing is left to hear. A browser that comes back gets 403, and stops.
    if (type === 'unsubscribed' && this.channels.length === 0)
      this.disconnect(closeCodes.policyViolation, 'unsubscribed');
  }

  subscribed(states: readonly SubscriptionState[]): void {
    const session = this.#session;
    if (session === undefined) return;
    const cursor = (this.#cursor = new CursorWriter(this.channels));
    for (const { channel, epoch, offset } of states) {
      if (epoch !== undefined && offset !== undefined) this.position(channel, { epoch, offset });
    }
    for (const [channel, position] of this.#resumed ?? []) this.position(channel, position);
    this.#resumed = undefined;
    const data = encodeFrame({ ...session.welcome(), heartbeat: keepAliveSeconds, channels: states });
    const welcome = sseEvent({ event: 'welcome', data, id: cursor.text(), retryMs: this.#kind.retryMs() });
    this.#writeText(welcome + (this.#early ?? ''));
    this.#early = undefined;
  }

  resumeFrom(channel: string, position: Position): void {
    (this.#resumed ??= new Map()).set(channel, position);
  }

  deliver(publications: readonly Publication[]): void {
    this.#look();
    const cursor = this.#cursor;
    const last = publications.at(-1);
    const isShared = publications.length >= sharedCountMin && publications.every(isSmall);
    if (!isShared || last === undefined || cursor === undefined) {
      this.#deliverEach(publications);
      return;
    }
    this.position(last.channel, last);
    this.#push(this.#fanout.recovered.chunk(cursor.text(), publications, () => this.#textOf(publications)));
  }

  #textOf(publications: readonly Publication[]): string {
    let text = '';
    for (const publication of publications) {
      text += sseEvent({ event: 'message', data: publication.frame, id: this.#moved(publication) });
    }
    return text;
  }

  #deliverEach(publications: readonly Publication[]): void {
    let text = '';
    for (const publication of publications) {
      const id = this.#moved(publication);
      if (isSmall(publication)) {
        text += sseEvent({ event: 'message', data: publication.frame, id });
      } else {
        this.#push(new SharedChunk(text + sseHead({ event: 'message', id })));
        this.#push(frameChunk(publication));
        text = sseEnd;
      }
    }
    this.#push(new SharedChunk(text));
  }

  /** The cursor after the publication. */
  #moved(publication: Publication): string | undefined {
    this.position(publication.channel, publication);
    return this.#cursor?.text();
  }

  awaitSnapshot(channel: string): void {
    (this.#awaited ??= new Set()).add(channel);
  }

  snapshot(channel: string, frame: string, position: Position | undefined): void {
    if (position !== undefined) {
      this.#awaited?.delete(channel);
      this.position(channel, position);
    }
    const id = position === undefined ? undefined : this.#cursor?.text();
    this.#writeText(sseEvent({ event: 'snapshot', data: frame, id }));
  }

  gap(gap: Gap): void {
    this.position(gap.channel, gap.position);
    this.#writeText(sseEvent({ event: 'gap', data: gapFrame(gap), id: this.#cursor?.text() }));
  }

  position(channel: string, position: Position): void {
    if (position.epoch !== '' && this.#awaited?.has(channel) !== true) this.#cursor?.set(channel, position);
  }

  join(channel: string): void {
    this.#joined++;
    if (this.#joined < this.channels.length) this.#fanout.addAlone(channel, this);
    else this.#joinGroup();
  }

  #joinGroup(): void {
    const cursor = this.#cursor;
    this.#cursor = undefined;
    if (cursor !== undefined) this.#fanout.addToGroup(this, cursor);
  }

  /** Only where a right to a channel was taken away: else a stream keeps its channels for life. */
  leave(channel: string): void {
    const { live, cursor = this.#cursor } = this.#fanout.detach(this);
    this.channels = this.channels.filter((other) => other !== channel);
    this.#resumed?.delete(channel);
    this.#awaited?.delete(channel);
    const stillLive = live.filter((other) => other !== channel);
    this.#joined = stillLive.length;
    if (this.channels.length === 0) return;
    this.#cursor = cursor?.narrowed(this.channels);
    if (this.#joined === this.channels.length) this.#joinGroup();
    else for (const other of stillLive) this.#fanout.addAlone(other, this);
  }

  /** Its cursor stays where it is in the channel, until the stream joins it again. */
  rest(channel: string): void {
    const { live, cursor = this.#cursor } = this.#fanout.detach(this);
    const stillLive = live.filter((other) => other !== channel);
    this.#joined = stillLive.length;
    // A copy: the group's own cursor moves on.
    this.#cursor = cursor?.narrowed(this.channels);
    for (const other of stillLive) this.#fanout.addAlone(other, this);
  }

  joinPresence(channel: string, shard: number): void {
    this.presences = [...this.presences, { channel, shard }];
    this.#fanout.joinPresence(channel, shard, this);
  }

  hearsPresence(channel: string, shard: number): boolean {
    return this.presences.some((each) => each.channel === channel && each.shard === shard);
  }

  leavePresence(channel: string, shard: number): void {
    this.presences = this.presences.filter((each) => each.channel !== channel || each.shard !== shard);
    this.#fanout.leavePresence(channel, shard, this);
  }

  bufferedBytes(): number {
    const controller = this.#controller;
    if (controller === undefined) return this.#waiting?.reduce((sum, chunk) => sum + chunk.byteLength, 0) ?? 0;
    return Math.max(0, (byteStrategy.highWaterMark ?? 0) - (controller.desiredSize ?? 0));
  }

  pause(): void {
    // An event stream sends no commands.
  }

  resume(): void {
    // See pause.
  }

  disconnect(code: number, reason: string): void {
    if (this.#ended) return;
    const controller = this.#controller;
    this.end(code, reason);
    if (this.#kind.compresses) controller?.enqueue(gzipEnd);
    controller?.close();
  }

  terminate(): void {
    if (this.#ended) return;
    const controller = this.#controller;
    this.end(1006, slowReader);
    // An error resets the connection and frees what is queued, which a close would still send. The runtime prints one
    // that says anything. In the turn in which the stream began, the runtime has not sent the answer's head yet, and would
    // not: the client could not tell an answer that broke off from a server that is gone.
    if (controller !== undefined) setImmediate(() => controller.error());
  }

  #writeText(text: string): void {
    this.write(new SharedChunk(text));
  }
}
