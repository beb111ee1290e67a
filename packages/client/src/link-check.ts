// Whether a transport can open here: opens links that carry nothing, less and less often, and closes them.

import type { Clock } from './clock.ts';
import type { LinkContext } from './connection-types.ts';
import type { Link } from './link.ts';

/** How often it was tried since it worked. */
export interface Checks {
  count: number;
}

/** True once one opens; false when `isOver`, which is asked after each wait. Never rejects. */
export async function untilOpens(
  open: (context: LinkContext) => Promise<Link>,
  tokenOf: () => Promise<string | undefined>,
  clock: Clock,
  timeoutMs: number,
  checks: Checks,
  isOver: () => boolean,
): Promise<boolean> {
  for (;;) {
    const waitMs = (2_000 + clock.random(3_000)) * 2 ** Math.min(checks.count++, 9);
    await new Promise<void>((resolve) => void clock.after(waitMs, resolve));
    if (isOver()) return false;
    const opens = await canOpen(open, tokenOf, clock, timeoutMs);
    if (isOver()) return false;
    if (opens) return true;
  }
}

/** False too when it takes too long, the token's coming included. */
async function canOpen(
  open: (context: LinkContext) => Promise<Link>,
  tokenOf: () => Promise<string | undefined>,
  clock: Clock,
  timeoutMs: number,
): Promise<boolean> {
  let check: Link | undefined;
  let isOver = false;
  const opens = await new Promise<boolean>((resolve) => {
    const stop = clock.after(timeoutMs, () => resolve(false));
    const end = (answer: boolean) => () => {
      stop();
      resolve(answer);
    };
    const context = {
      positionOf: () => undefined,
      onFrame: () => undefined,
      onPause: () => undefined,
      onEnd: end(false),
      onReady: end(true),
    };
    tokenOf()
      .then((token) => (isOver ? undefined : open({ ...context, token })))
      .then((opened) => {
        if (isOver) opened?.close();
        else check = opened;
      })
      .catch(end(false));
  });
  isOver = true;
  check?.close();
  return opens;
}
