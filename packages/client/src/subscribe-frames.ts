// How many channels go into one `subscribe`: all of them, unless the frame would be larger than a server takes.

import { printExact } from './exact-json.ts';
import type { SubscribeEntry } from './protocol.ts';

const channelsMax = 1_000;
/** The server takes 64 KiB unless it says otherwise; a character may be three bytes. */
const lengthMax = 20_000;

export function inFrames(entries: readonly SubscribeEntry[]): SubscribeEntry[][] {
  const frames: SubscribeEntry[][] = [];
  let length = Infinity;
  for (const entry of entries) {
    const own = printExact(entry).length + 1;
    if ((length += own) > lengthMax || frames.at(-1)?.length === channelsMax) {
      frames.push([]);
      length = own;
    }
    frames.at(-1)?.push(entry);
  }
  return frames;
}
