// A gap as both transports tell it.

import type { Gap } from '../core/outlet.ts';
import { encodeFrame } from '../protocol/frames.ts';

export function gapFrame({ channel, position, reason }: Gap): string {
  return encodeFrame({ type: 'gap', channel, ...position, reason });
}
