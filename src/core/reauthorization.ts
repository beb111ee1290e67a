// Rights that end while a connection lasts: its token expires, or what it may do is taken back.

import type { Hub } from './hub.ts';

/** Closes the connections whose tokens have ended; call it every second or so. */
export function expireTokens(hub: Hub): void {
  const nowSeconds = hub.clock.now() / 1_000;
  for (const session of [...hub.sessions.values()]) session.expire(nowSeconds);
}

/**
 * Asks anew whether the user's connections on this node, or all of them, may stay where they are subscribed. Answers how
 * many subscriptions were ended. Never rejects: who cannot be asked about is shut out.
 */
export async function reauthorize(hub: Hub, user: string | undefined): Promise<number> {
  await hub.access.renew(user);
  const sessions = [...hub.sessions.values()].filter(
    (session) => session.subscriptionCount > 0 && (user === undefined || session.identity.user === user),
  );
  const left = await Promise.all(sessions.map((session) => session.reauthorize()));
  return left.reduce((sum, count) => sum + count, 0);
}
