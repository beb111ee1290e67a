// Frames of publications for WebSockets whose clients read them compressed. A frame is compressed once, however many read
// it: as raw deflate, whole in itself, so that it fits into every connection, whenever that joined. The runtime's own
// compression works once for each connection and delivery, which costs many times more.

import type { ServerWebSocket } from 'bun';
import { WebSocketConnection } from './websocket.ts';

/** Shorter frames gain little, and cost their reader as much. */
const charactersMin = 512;

/** Level 2 takes half of the time that level 6 does, and saves nearly as much. */
const options = { level: 2 } as const;

const encoder = new TextEncoder();

/** As it is sent: the text itself where it is short, or would not get shorter. */
export function deflated(frame: string): string | Uint8Array {
  if (frame.length < charactersMin) return frame;
  const bytes = Bun.deflateSync(encoder.encode(frame), options);
  return bytes.length < frame.length ? bytes : frame;
}

/** The topic of those who read compressed frames; no channel's name has a blank, and shards of presence are numbers. */
export function deflatedTopic(channel: string): string {
  return `${channel} deflated`;
}

/** How many there are in this process: while it is 0, publications look no further. */
let open = 0;

export function isAnyDeflated(): boolean {
  return open > 0;
}

/** What it alone is sent stays text. */
export class DeflatedConnection extends WebSocketConnection {
  override open(socket: ServerWebSocket<WebSocketConnection>): void {
    open++;
    super.open(socket);
  }

  override close(socket: ServerWebSocket<WebSocketConnection>, code: number, reason: string): void {
    open--;
    super.close(socket, code, reason);
  }

  override topicOf(channel: string): string {
    return deflatedTopic(channel);
  }
}
