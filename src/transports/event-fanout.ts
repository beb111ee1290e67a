// Fan-out to event streams. Streams with the same channels form a group: what one tick publishes is encoded once per
// group, cursors included, and each stream gets the one shared chunk. Writing each message to each stream on its own
// is many times slower.

import type { Fanout, Gap, PresencePush, TransportKind } from '../core/outlet.ts';
import type { Publication } from '../core/publication.ts';
import type { CursorWriter } from '../protocol/cursor.ts';
import { encodeFrame } from '../protocol/frames.ts';
import { sseComment, sseEvent } from '../protocol/sse.ts';
import { gapFrame } from './gap-frame.ts';
import { PresenceStreams } from './presence-streams.ts';
import { RecoveredEvents } from './recovered-events.ts';
import { SharedChunk } from './shared-chunk.ts';

/** The transport's name. */
export const sse = 'sse';

export const eventStreams: TransportKind = {
  name: sse,
  active: { name: 'sobranie_sse_connections_active', help: 'Open event streams' },
};

/** An event stream, as the fan-out sees it. */
export interface FannedOut {
  /** Those that it hears, in the order asked. */
  readonly channels: readonly string[];
  /** Of which channels it hears who is there. */
  readonly presences: readonly { readonly channel: string; readonly shard: number }[];
  /** Its keep-alive is an event, which a page can see. */
  readonly wantsPings: boolean;
  write(chunk: SharedChunk): void;
  /** While it is not yet live on all of its channels. */
  deliver(publications: readonly Publication[]): void;
  gap(gap: Gap): void;
}

interface Group {
  readonly key: string;
  readonly channels: readonly string[];
  readonly cursor: CursorWriter;
  readonly streams: Set<FannedOut>;
  /** What this tick has published so far. */
  pending: string;
}

interface Detached {
  readonly live: readonly string[];
  readonly cursor: CursorWriter | undefined;
}

/** Between two keep-alives of a stream. Each second a share of all streams gets its own. */
export const keepAliveSeconds = 15;

export class EventFanout implements Fanout {
  readonly transport = sse;
  readonly bufferedBytesMax: number;
  /** What streams are sent before they are in a group. */
  readonly recovered = new RecoveredEvents();
  readonly #groups = new Map<string, Group>();
  readonly #groupsOf = new Map<string, Set<Group>>();
  readonly #aloneOn = new Map<string, Set<FannedOut>>();
  /** Apart from the groups: what changes there moves no cursor, and streams hear it before they are live. */
  readonly #presence = new PresenceStreams();
  /** With the second of the round in which each gets its keep-alive. */
  readonly #streams = new Map<FannedOut, number>();
  readonly #dirty = new Set<Group>();
  #scheduled = false;
  #keepAlives: ReturnType<typeof setInterval> | undefined;
  #second = 0;
  #nextSecond = 0;
  readonly #comment = new SharedChunk(sseComment('keep-alive'));
  readonly #ping = new SharedChunk(sseEvent({ event: 'ping', data: encodeFrame({ type: 'ping' }) }));

  constructor(bufferedBytesMax: number) {
    this.bufferedBytesMax = bufferedBytesMax;
  }

  start(): void {
    this.#keepAlives ??= setInterval(() => {
      this.recovered.sweep();
      this.keepAlive();
    }, 1_000);
  }

  /** Ends the keep-alives; streams end one by one. */
  close(): void {
    clearInterval(this.#keepAlives);
    this.#keepAlives = undefined;
  }

  add(stream: FannedOut): void {
    this.#streams.set(stream, this.#nextSecond);
    this.#nextSecond = (this.#nextSecond + 1) % keepAliveSeconds;
  }

  publication(publication: Publication): number {
    const { channel } = publication;
    for (const group of this.#groupsOf.get(channel) ?? []) {
      if (publication.epoch !== '') group.cursor.set(channel, publication);
      this.#append(group, sseEvent({ event: 'message', data: publication.frame, id: group.cursor.text() }));
    }
    for (const stream of this.#aloneOn.get(channel) ?? []) stream.deliver([publication]);
    // A stream publishes nothing, so none is excepted.
    return 0;
  }

  gap(gap: Gap): void {
    for (const group of this.#groupsOf.get(gap.channel) ?? []) {
      group.cursor.set(gap.channel, gap.position);
      this.#append(group, sseEvent({ event: 'gap', data: gapFrame(gap), id: group.cursor.text() }));
    }
    for (const stream of this.#aloneOn.get(gap.channel) ?? []) stream.gap(gap);
  }

  presence(channel: string, shard: number, pushes: readonly PresencePush[]): number {
    return this.#presence.write(channel, shard, pushes);
  }

  joinPresence(channel: string, shard: number, stream: FannedOut): void {
    this.#presence.join(channel, shard, stream);
  }

  leavePresence(channel: string, shard: number, stream: FannedOut): void {
    this.#presence.leave(channel, shard, stream);
  }

  /** Live on this channel, but not yet on all of its others. */
  addAlone(channel: string, stream: FannedOut): void {
    const alone = this.#aloneOn.get(channel);
    if (alone === undefined) this.#aloneOn.set(channel, new Set([stream]));
    else alone.add(stream);
  }

  /** Live on all channels: `cursor` says exactly where this node stands in them. */
  addToGroup(stream: FannedOut, cursor: CursorWriter): void {
    this.#leaveAlone(stream);
    // In the order asked: a cursor's text follows it.
    const key = stream.channels.join(',');
    let group = this.#groups.get(key);
    if (group === undefined) {
      group = { key, channels: stream.channels, cursor, streams: new Set(), pending: '' };
      this.#groups.set(key, group);
      for (const channel of group.channels) {
        const groups = this.#groupsOf.get(channel);
        if (groups === undefined) this.#groupsOf.set(channel, new Set([group]));
        else groups.add(group);
      }
    }
    // What the group still holds back lies before this stream's position.
    this.#flush(group);
    group.streams.add(stream);
  }

  remove(stream: FannedOut): void {
    this.#streams.delete(stream);
    for (const { channel, shard } of stream.presences) this.#presence.leave(channel, shard, stream);
    this.detach(stream);
  }

  /** No publication reaches it any more. Answers what it was live on, and the cursor of its group, if it had one. */
  detach(stream: FannedOut): Detached {
    const live = stream.channels.filter((channel) => this.#aloneOn.get(channel)?.has(stream) === true);
    this.#leaveAlone(stream);
    const group = this.#groups.get(stream.channels.join(','));
    if (group?.streams.has(stream) !== true) return { live, cursor: undefined };
    // It was still allowed to hear what the group holds back.
    this.#flush(group);
    group.streams.delete(stream);
    if (group.streams.size === 0) this.#forget(group);
    return { live: stream.channels, cursor: group.cursor };
  }

  #forget(group: Group): void {
    const { key } = group;
    this.#groups.delete(key);
    this.#dirty.delete(group);
    for (const channel of group.channels) {
      const groups = this.#groupsOf.get(channel);
      groups?.delete(group);
      if (groups?.size === 0) this.#groupsOf.delete(channel);
    }
  }

  #leaveAlone(stream: FannedOut): void {
    for (const channel of stream.channels) {
      const alone = this.#aloneOn.get(channel);
      alone?.delete(stream);
      if (alone?.size === 0) this.#aloneOn.delete(channel);
    }
  }

  #append(group: Group, text: string): void {
    group.pending += text;
    this.#dirty.add(group);
    if (group.pending.length > tickBytesMax) this.#flush(group);
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(() => this.flush());
  }

  /** The tick ends: every group with something new is written once. */
  flush(): void {
    this.#scheduled = false;
    for (const group of this.#dirty) this.#flush(group);
  }

  #flush(group: Group): void {
    this.#dirty.delete(group);
    if (group.pending === '') return;
    const chunk = new SharedChunk(group.pending);
    group.pending = '';
    for (const stream of group.streams) stream.write(chunk);
  }

  /** One second of the round. A chunk holds whole events, so a keep-alive never stands within one. */
  keepAlive(): void {
    this.#second = (this.#second + 1) % keepAliveSeconds;
    for (const [stream, second] of this.#streams) {
      if (second === this.#second) stream.write(stream.wantsPings ? this.#ping : this.#comment);
    }
  }
}

/** Past this a tick's text is written before the tick ends, so that lagging readers are seen early. */
const tickBytesMax = 256 << 10;
