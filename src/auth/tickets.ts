// Tickets: each opens one connection, soon, in place of a token. They stand in URLs, where EventSource has to put what
// it shows, and URLs end up in the logs of proxies: what is read there has been used, or has ended, by then.

import type { Authenticate, Identity } from '../core/access.ts';
import type { Clock } from '../time/clock.ts';
import { within } from '../time/within.ts';
import { RealtimeError } from '../protocol/realtime-error.ts';
import { identityOf, type Claims } from './claims-identity.ts';
import { isTicket, newTicket, ticketDigest } from './ticket.ts';
import type { TicketStore } from './ticket-store.ts';
import { vouchedClaims, type Vouched } from './vouched-claims.ts';

export interface IssuedTicket {
  readonly ticket: string;
  /** Unix seconds. */
  readonly expires: number;
}

export const ticketSeconds = 30;
const claimsLengthMax = 8 << 10;
const answerMsMax = 2_000;

export class Tickets {
  readonly #store: TicketStore;
  readonly #clock: Clock;

  constructor(store: TicketStore, clock: Clock) {
    this.#store = store;
    this.#clock = clock;
  }

  /** Throws `unauthorized` for claims that no token could have, `too_large`, `limit_exceeded` or `unavailable`. */
  async issue(claims: Claims): Promise<IssuedTicket> {
    const now = this.#clock.now() / 1_000;
    identityOf(claims, now);
    const text = JSON.stringify(claims);
    if (text.length > claimsLengthMax) {
      throw new RealtimeError('too_large', `The claims are larger than ${claimsLengthMax} characters.`);
    }
    const ticket = newTicket();
    await answered(this.#store.put(ticketDigest(ticket) ?? '', text, ticketSeconds));
    return { ticket, expires: Math.floor(now) + ticketSeconds };
  }

  /** For whom a backend vouches. Throws as `issue`, and `bad_request`. */
  async vouch(vouched: Vouched): Promise<IssuedTicket> {
    return this.issue(vouchedClaims(vouched, this.#clock.now() / 1_000));
  }

  /** Who it was issued for, once. Throws `unauthorized`, `token_expired` or `unavailable`. */
  async redeem(ticket: string): Promise<Identity> {
    const digest = ticketDigest(ticket);
    const text = digest === undefined ? undefined : await answered(this.#store.take(digest));
    if (text === undefined) {
      // Which of these it was is not told: nothing is kept of a ticket that was used.
      const message = `The ticket was used, has ended or never was: each opens one connection, for ${ticketSeconds} s.`;
      throw new RealtimeError('unauthorized', message);
    }
    return identityOf(JSON.parse(text) as Claims, this.#clock.now() / 1_000);
  }
}

/** Takes tickets wherever a token may stand; all else is for `next`. */
export function takingTickets(tickets: Tickets, next: Authenticate): Authenticate {
  return (token) => (token !== undefined && isTicket(token) ? tickets.redeem(token) : next(token));
}

/** A store that is away, or dawdles, makes nobody wait for long. */
async function answered<Value>(answer: Promise<Value>): Promise<Value> {
  try {
    return await within(answer, answerMsMax, 'the answer of the ticket store');
  } catch (cause) {
    if (cause instanceof RealtimeError) throw cause;
    throw new RealtimeError('unavailable', 'Tickets cannot be kept or checked now; retry.', { cause });
  }
}
