// Event streams that hear of a channel's presence: each change is encoded once, and is the same bytes for all of them.

import type { PresencePush } from '../core/outlet.ts';
import { sseEvent } from '../protocol/sse.ts';

/** An event stream, as it is told here. */
export interface PresenceStream {
  /** One chunk may be shared by many streams. */
  write(chunk: Uint8Array): void;
}

const encoder = new TextEncoder();

export class PresenceStreams {
  readonly #streams = new Map<string, Set<PresenceStream>>();

  join(channel: string, stream: PresenceStream): void {
    const streams = this.#streams.get(channel);
    if (streams === undefined) this.#streams.set(channel, new Set([stream]));
    else streams.add(stream);
  }

  leave(channel: string, stream: PresenceStream): void {
    const streams = this.#streams.get(channel);
    streams?.delete(stream);
    if (streams?.size === 0) this.#streams.delete(channel);
  }

  write(channel: string, pushes: readonly PresencePush[]): void {
    const streams = this.#streams.get(channel);
    if (streams === undefined) return;
    const text = pushes.map(({ type, frame }) => sseEvent({ event: type, data: frame })).join('');
    const chunk = encoder.encode(text);
    for (const stream of streams) stream.write(chunk);
  }
}
