// Tickets in Redis, which forgets them by itself. GETDEL is one step, so no two nodes get the same ticket.

import type { Cluster, Redis } from 'ioredis';
import type { TicketStore } from '../../auth/ticket-store.ts';

export function redisTickets(client: Redis | Cluster, prefix: string): TicketStore {
  const keyOf = (digest: string): string => `${prefix}:ticket:${digest}`;
  return {
    put: async (digest, text, seconds) => {
      await client.set(keyOf(digest), text, 'EX', seconds);
    },
    take: async (digest) => (await client.getdel(keyOf(digest))) ?? undefined,
  };
}
