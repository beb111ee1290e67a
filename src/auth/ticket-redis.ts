// Tickets in Redis, which forgets them by itself. GETDEL is one step, so no two nodes get the same.

import type { TicketStore } from './ticket-store.ts';

/** What is asked of the driver. */
export interface TicketRedis {
  set(key: string, text: string, seconds: number): Promise<unknown>;
  getdel(key: string): Promise<string | null>;
}

export function redisTickets(redis: TicketRedis, prefix: string): TicketStore {
  const keyOf = (digest: string): string => `${prefix}:ticket:${digest}`;
  return {
    put: async (digest, text, seconds) => {
      await redis.set(keyOf(digest), text, seconds);
    },
    take: async (digest) => (await redis.getdel(keyOf(digest))) ?? undefined,
  };
}
