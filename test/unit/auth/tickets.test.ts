// Tickets in one process: used once, in time, in bounds. What nodes share is tested with real stores and real nodes.

import { expect, test } from 'bun:test';
import { MemoryTickets } from '../../../src/sync/memory/tickets.ts';
import type { TicketStore } from '../../../src/auth/ticket-store.ts';
import { takingTickets, Tickets, ticketSeconds } from '../../../src/auth/tickets.ts';
import { anonymous } from '../../../src/core/access.ts';
import { systemClock, type Clock } from '../../../src/time/clock.ts';

/** A clock that moves when it is told to. */
function handClock(): Clock & { pass(seconds: number): void } {
  let passed = 0;
  return {
    ...systemClock,
    now: () => 1_000_000_000 + passed * 1_000,
    monotonic: () => passed * 1_000,
    pass: (seconds) => (passed += seconds),
  };
}

const codeOf = (error: { code?: string }): string | undefined => error.code;

test('a ticket opens once, for whom it was issued', async () => {
  const tickets = new Tickets(new MemoryTickets(systemClock), systemClock);
  const claims = { sub: 'ann', plan: 'gold', channels: { 'chat:*': ['subscribe'] } };
  const { ticket, expires } = await tickets.issue(claims);
  expect(ticket).toMatch(/^ticket_[\w-]{43}$/);
  expect(Math.abs(expires - Date.now() / 1_000 - ticketSeconds)).toBeLessThan(3);
  const identity = await tickets.redeem(ticket);
  expect(identity).toMatchObject({ user: 'ann', claims });
  expect(identity.grants).toHaveLength(1);
  expect(await tickets.redeem(ticket).catch(codeOf)).toBe('unauthorized');
});

test('of many who show it at once one gets in', async () => {
  const tickets = new Tickets(new MemoryTickets(systemClock), systemClock);
  const { ticket } = await tickets.issue({ sub: 'ann' });
  const tries = await Promise.allSettled(Array.from({ length: 50 }, () => tickets.redeem(ticket)));
  expect(tries.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
});

test('no two tickets are alike, and what is kept is none', async () => {
  const kept: string[] = [];
  const store: TicketStore = {
    put: (digest, text) => {
      kept.push(digest, text);
      return Promise.resolve();
    },
    take: () => Promise.resolve(undefined),
  };
  const tickets = new Tickets(store, systemClock);
  const issued = await Promise.all(Array.from({ length: 500 }, () => tickets.issue({ sub: 'ann' })));
  expect(new Set(issued.map(({ ticket }) => ticket)).size).toBe(500);
  for (const { ticket } of issued) expect(kept.join()).not.toContain(ticket.slice('ticket_'.length));
});

test('what cannot be a ticket is refused without asking the store', async () => {
  const store: TicketStore = { put: () => Promise.reject(new Error()), take: () => Promise.reject(new Error('asked')) };
  const tickets = new Tickets(store, systemClock);
  const whole = `ticket_${'a'.repeat(43)}`;
  for (const text of [
    'ticket_',
    whole.slice(0, -1),
    `${whole}a`,
    whole.replace(/a$/, '*'),
    `${whole}\n`,
    `ticket_../x`,
  ]) {
    expect(await tickets.redeem(text).catch(codeOf)).toBe('unauthorized');
  }
  expect(await tickets.redeem(whole).catch(codeOf)).toBe('unavailable');
});

test('late is too late, and nothing of it is kept', async () => {
  const clock = handClock();
  const store = new MemoryTickets(clock);
  const tickets = new Tickets(store, clock);
  const [early, late] = [await tickets.issue({ sub: 'ann' }), await tickets.issue({ sub: 'ann' })];
  clock.pass(ticketSeconds - 1);
  expect(await tickets.redeem(early.ticket)).toMatchObject({ user: 'ann' });
  clock.pass(1);
  expect(await tickets.redeem(late.ticket).catch(codeOf)).toBe('unauthorized');
  expect(store.size).toBe(0);
});

test('a token that ends meanwhile ends its ticket', async () => {
  const clock = handClock();
  const tickets = new Tickets(new MemoryTickets(clock), clock);
  const { ticket } = await tickets.issue({ sub: 'ann', exp: clock.now() / 1_000 + 10 });
  clock.pass(16);
  expect(await tickets.redeem(ticket).catch(codeOf)).toBe('token_expired');
});

test('memory holds so many and no more, by number and by size, and room comes back with time', async () => {
  const clock = handClock();
  const few = new MemoryTickets(clock, 100);
  for (let index = 0; index < 100; index++) await few.put(`digest ${index}`, 'text', 30);
  expect(await few.put('one more', 'text', 30).catch((error: unknown) => error)).toMatchObject({
    code: 'limit_exceeded',
    retryAfter: 30,
  });
  expect(await few.take('digest 7')).toBe('text');
  await few.put('one more', 'text', 30);
  clock.pass(30);
  await few.put('another', 'text', 30);
  expect(few.size).toBe(1);

  const large = new MemoryTickets(clock);
  const text = 'x'.repeat(8 << 10);
  let fitted = 0;
  while (
    await large.put(`digest ${fitted}`, text, 30).then(
      () => true,
      () => false,
    )
  )
    fitted++;
  expect(fitted).toBe(4_096);
});

test('claims of more than 8 KiB are too large', async () => {
  const tickets = new Tickets(new MemoryTickets(systemClock), systemClock);
  expect(await tickets.issue({ sub: 'ann', more: 'x'.repeat(8 << 10) }).catch(codeOf)).toBe('too_large');
});

test('a store that never answers keeps nobody for long', async () => {
  const store: TicketStore = {
    put: () => Promise.withResolvers<void>().promise,
    take: () => Promise.withResolvers<undefined>().promise,
  };
  const tickets = new Tickets(store, systemClock);
  const startedAt = performance.now();
  const answers = await Promise.all([
    tickets.issue({ sub: 'ann' }).catch(codeOf),
    tickets.redeem(`ticket_${'a'.repeat(43)}`).catch(codeOf),
  ]);
  expect(answers).toEqual(['unavailable', 'unavailable']);
  expect(performance.now() - startedAt).toBeLessThan(4_500);
});

test('what a backend vouches for is checked member by member', async () => {
  const tickets = new Tickets(new MemoryTickets(systemClock), systemClock);
  const later = Date.now() / 1_000 + 60;
  const { ticket } = await tickets.vouch({
    user: 'ann',
    channels: { posts: ['subscribe'] },
    claims: { tenant: 't1' },
    expires: later,
  });
  expect(await tickets.redeem(ticket)).toMatchObject({
    user: 'ann',
    expiresAt: later,
    claims: { sub: 'ann', tenant: 't1', exp: later, channels: { posts: ['subscribe'] } },
  });
  const wrong: readonly [object, string][] = [
    [{ user: 7 }, 'user'],
    [{ user: null }, 'user'],
    [{ user: '' }, 'user'],
    [{ user: 'a\nb' }, 'user'],
    [{ user: 'a'.repeat(129) }, 'user'],
    [{ user: 'ann', channels: [] }, 'channels'],
    [{ user: 'ann', channels: { posts: ['eat'] } }, 'channels'],
    [{ user: 'ann', claims: 'gold' }, 'claims'],
    [{ user: 'ann', claims: null }, 'claims'],
    [{ user: 'ann', claims: { sub: 'bob' } }, 'claims'],
    [{ user: 'ann', claims: { exp: later } }, 'claims'],
    [{ user: 'ann', claims: { channels: {} } }, 'claims'],
    [{ user: 'ann', expires: 1 }, 'expires'],
    [{ user: 'ann', expires: String(later) }, 'expires'],
    [{ user: 'ann', expires: Number.POSITIVE_INFINITY }, 'expires'],
  ];
  for (const [vouched, member] of wrong) {
    expect(await tickets.vouch(vouched).catch((error: unknown) => error)).toMatchObject({
      code: 'bad_request',
      message: expect.stringContaining(`"${member}" `) as unknown as string,
    });
  }
});

test('everything that is no ticket is left to the check of tokens', async () => {
  const seen: unknown[] = [];
  const tickets = new Tickets(new MemoryTickets(systemClock), systemClock);
  const enter = takingTickets(tickets, (token) => {
    seen.push(token);
    return anonymous;
  });
  // Nobody waits for a check that needs no waiting.
  expect(enter(undefined)).toBe(anonymous);
  expect(enter('a.b.c')).toBe(anonymous);
  expect(enter('TICKET_x')).toBe(anonymous);
  const { ticket } = await tickets.issue({ sub: 'ann' });
  expect(await enter(ticket)).toMatchObject({ user: 'ann' });
  expect(seen).toEqual([undefined, 'a.b.c', 'TICKET_x']);
});

test('claims that no token could have get no ticket', async () => {
  let kept = 0;
  const store: TicketStore = { put: () => Promise.resolve(void kept++), take: () => Promise.resolve(undefined) };
  const clock = handClock();
  const tickets = new Tickets(store, clock);
  const now = clock.now() / 1_000;
  // Five seconds are for clocks that differ, and not one more.
  expect(await tickets.issue({ sub: 'ann', exp: now - 4 }).catch(codeOf)).toMatchObject({ ticket: expect.any(String) });
  for (const [claims, code] of [
    [{}, 'unauthorized'],
    [{ sub: 'ann', channels: 'posts' }, 'unauthorized'],
    [{ sub: 'ann', exp: now - 5 }, 'token_expired'],
  ] as const) {
    expect([claims, await tickets.issue(claims).catch(codeOf)]).toEqual([claims, code]);
  }
  expect(kept).toBe(1);
});
