// Event streams that hear of a channel's presence: each change is encoded once, and is the same bytes for all of them.

import type { PresencePush } from '../core/outlet.ts';
import { sseEvent } from '../protocol/sse.ts';
import { SharedChunk } from './shared-chunk.ts';

/** An event stream, as it is told here. */
export interface PresenceStream {
  write(chunk: SharedChunk): void;
}

export class PresenceStreams {
  /** By channel and shard. */
  readonly #streams = new Map<string, Set<PresenceStream>>();

  join(channel: string, shard: number, stream: PresenceStream): void {
    const key = keyOf(channel, shard);
    const streams = this.#streams.get(key);
    if (streams === undefined) this.#streams.set(key, new Set([stream]));
    else streams.add(stream);
  }

  leave(channel: string, shard: number, stream: PresenceStream): void {
    const key = keyOf(channel, shard);
    const streams = this.#streams.get(key);
    streams?.delete(stream);
    if (streams?.size === 0) this.#streams.delete(key);
  }

  /** Answers to how many. */
  write(channel: string, shard: number, pushes: readonly PresencePush[]): number {
    const streams = this.#streams.get(keyOf(channel, shard));
    if (streams === undefined) return 0;
    const text = pushes.map(({ type, frame }) => sseEvent({ event: type, data: frame })).join('');
    const chunk = new SharedChunk(text);
    for (const stream of streams) stream.write(chunk);
    return streams.size;
  }
}

function keyOf(channel: string, shard: number): string {
  return `${channel} ${shard}`;
}
