// Pace: an adapter that reads a log in batches waits here for this node's sockets. So one statement of 100,000 rows does
// not fill their buffers, and closes no reader that keeps up a fair pace. A slower reader is waited for once, briefly, and
// then left to its own buffer limit: it must not slow the others down.

import type { Clock } from '../time/clock.ts';
import type { Outlet } from './outlet.ts';

export interface PaceLimits {
  /** A connection with more bytes than this buffered is lagging. */
  readonly highWaterBytes: number;
  /** A lagging connection takes in at least this much... */
  readonly fairBytes: number;
  /** ...in this many milliseconds, or is slow. */
  readonly fairMs: number;
}

/** 64 KiB in 50 ms is 1.3 MB/s: several thousand messages, which a browser on a poor line still reads. */
export const paceLimits: PaceLimits = { highWaterBytes: 1 << 20, fairBytes: 64 << 10, fairMs: 50 };

/** One subscriber that recovers holds up nobody, so it is given more time: 64 KiB in 10 s. */
const recoveryPaceLimits: PaceLimits = { highWaterBytes: 256 << 10, fairBytes: 64 << 10, fairMs: 10_000 };

/** How far readers may lag, and what they are given between two looks at how far they do. */
export interface Pace {
  readonly live: PaceLimits;
  readonly recovery: PaceLimits;
  /** The sockets of a channel are looked at each time it has fanned out this much to each of them. */
  readonly lookEveryBytes: number;
  /** Those of all channels are, each time so much was fanned out in all of them: one connection may be in each. */
  readonly lookAllEveryBytes: number;
  /** Of live publications that are held back for one that recovers: all of them are sent at once. */
  readonly heldBytesMax: number;
}

const lookEveryBytes = 128 << 10;

/**
 * `bufferedBytesMax`: a connection with more than that is cut off. What is waited for, and what is sent before the next
 * look, are together less. Otherwise a subscriber would be cut off for what the server itself gave it at once.
 */
export function paceWithin(bufferedBytesMax: number): Pace {
  const quarter = Math.floor(bufferedBytesMax / 4);
  const eighth = Math.floor(bufferedBytesMax / 8);
  return {
    live: { ...paceLimits, highWaterBytes: Math.min(paceLimits.highWaterBytes, quarter) },
    recovery: { ...recoveryPaceLimits, highWaterBytes: Math.min(recoveryPaceLimits.highWaterBytes, eighth) },
    lookEveryBytes: Math.min(lookEveryBytes, eighth),
    lookAllEveryBytes: Math.min(paceLimits.highWaterBytes, quarter),
    heldBytesMax: quarter,
  };
}

const pollMs = 2;
/** Looks grow rarer up to this many in the time that a fair reader has: thousands may be waited for, each by itself. */
const looksMin = 25;
const pollMsMax = 50;

/** What is waited for: a session, or anything else with an outlet. */
export interface Paced {
  readonly outlet: Outlet;
  readonly closed: boolean;
  slow: boolean;
}

interface Lagging {
  readonly paced: Paced;
  bytes: number;
  since: number;
}

export function isLagging(paced: Paced, limits: PaceLimits): boolean {
  if (paced.closed) return false;
  const lags = paced.outlet.bufferedBytes() > limits.highWaterBytes;
  if (!lags) paced.slow = false;
  return lags;
}

/** Resolves when none of these lags any more, or those that do were found slow. */
export async function waitForPace(
  candidates: readonly Paced[],
  clock: Clock,
  limits: PaceLimits,
  everyMs = pollMs,
): Promise<void> {
  const now = clock.monotonic();
  let lagging: Lagging[] = candidates
    .filter((paced) => !paced.slow)
    .map((paced) => ({ paced, bytes: paced.outlet.bufferedBytes(), since: now }));
  const pauseMsMax = Math.max(everyMs, Math.min(pollMsMax, limits.fairMs / looksMin));
  for (let pauseMs = everyMs; lagging.length > 0; pauseMs = Math.min(pauseMs * 1.5, pauseMsMax)) {
    await clock.sleep(pauseMs);
    lagging = lagging.filter((entry) => stillWorthWaiting(entry, clock, limits));
  }
}

function stillWorthWaiting(entry: Lagging, clock: Clock, limits: PaceLimits): boolean {
  if (!isLagging(entry.paced, limits)) return false;
  const bytes = entry.paced.outlet.bufferedBytes();
  const now = clock.monotonic();
  if (entry.bytes - bytes >= limits.fairBytes) {
    entry.bytes = bytes;
    entry.since = now;
  } else if (now - entry.since > limits.fairMs) {
    entry.paced.slow = true;
    return false;
  }
  return true;
}
