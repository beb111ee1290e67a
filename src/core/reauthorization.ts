// Rights that end while a connection lasts: its token expires, or what it may do is taken back.

import type { Hub } from './hub.ts';

/** Closes the connections whose tokens have ended; call it every second or so. */
export function expireTokens(hub: Hub): void {
  const nowSeconds = hub.clock.now() / 1_000;
  for (const session of [...hub.sessions.values()]) session.expire(nowSeconds);
}

/** Asked about at once, some channels of each: what decides is not to be flooded. */
const sessionsAtOnce = 16;

/**
 * Asks anew whether the user's connections on this node, or all of them, may stay where they are subscribed. Answers how
 * many subscriptions were ended: who cannot be asked about is shut out. Rejects, with the old rules in force, when the
 * new ones cannot be read.
 */
export async function reauthorize(hub: Hub, user: string | undefined): Promise<number> {
  await hub.access.renew(user);
  const sessions = [...hub.sessions.values()].filter(
    (session) => session.subscriptionCount > 0 && (user === undefined || session.identity.user === user),
  );
  let left = 0;
  for (let start = 0; start < sessions.length; start += sessionsAtOnce) {
    const some = sessions.slice(start, start + sessionsAtOnce);
    for (const count of await Promise.all(some.map((session) => session.reauthorize()))) left += count;
  }
  return left;
}
