// How long the opening of a link may take. The first openings of streams since a link fell silent get little time: browsers
// reuse connections, also those of a dead link, and each of them is tried once.

import type { TransportName } from './link.ts';

/** A link says welcome within this time. */
export const openMs = 10_000;
const firstMs = 2_000;

/** `openings`: how many there were since a link fell silent. */
export function openingMs(transport: TransportName, openings: number): number {
  return transport === 'sse' ? Math.min(openMs, firstMs * 1.5 ** openings) : openMs;
}
