// Whether a transport can open here: opens a link that carries nothing, and closes it.

import type { Clock } from './clock.ts';
import type { LinkContext } from './connection-types.ts';
import type { Stop } from './emitter.ts';
import type { Link } from './link.ts';

/** False too when it takes longer than `timeoutMs`. Never rejects. */
export async function canOpen(
  open: (context: LinkContext) => Promise<Link>,
  tokenOf: () => Promise<string | undefined>,
  clock: Clock,
  timeoutMs: number,
): Promise<boolean> {
  let check: Link | undefined;
  let stop: Stop | undefined;
  try {
    const token = await tokenOf();
    return await new Promise<boolean>((resolve, reject) => {
      stop = clock.after(timeoutMs, () => resolve(false));
      open({
        token,
        positionOf: () => undefined,
        onFrame: () => undefined,
        onPause: () => undefined,
        onEnd: () => resolve(false),
        onReady: () => resolve(true),
      }).then((opened) => (check = opened), reject);
    });
  } catch {
    return false;
  } finally {
    stop?.();
    check?.close();
  }
}
