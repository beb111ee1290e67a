// Tickets: each opens one connection in place of a token, within seconds. EventSource has to put what it shows into the
// URL, and URLs end up in the logs of proxies: a ticket that is read there has been used, or has expired.
//
// A ticket is a prefix by which people and programs recognise it, then 256 random bits. Only its digest is kept, so
// that a reader of the store, or of a backup of it, holds no ticket.

import { createHash, randomBytes } from 'node:crypto';
import type { Authenticate, Identity } from '../core/access.ts';
import { RealtimeError } from '../protocol/realtime-error.ts';
import type { Clock } from '../time/clock.ts';
import { within } from '../time/within.ts';
import { identityOf, vouchedClaims, type Claims, type Vouched } from './claims.ts';
import type { TicketStore } from './ticket-store.ts';

export interface IssuedTicket {
  readonly ticket: string;
  /** Unix seconds. */
  readonly expires: number;
}

export const ticketSeconds = 30;
const claimsLengthMax = 8 << 10;
const storeMsMax = 2_000;
/** No JSON Web Token begins like this, or holds an underscore before its first dot. */
const prefix = 'ticket_';
const secretBytes = 32;

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
    const ticket = prefix + randomBytes(secretBytes).toString('base64url');
    await answered(this.#store.put(digestOf(ticket), text, ticketSeconds));
    return { ticket, expires: Math.floor(now) + ticketSeconds };
  }

  /** For a user whom a backend vouches for. Throws as `issue`, and `bad_request`. */
  async vouch(vouched: Vouched): Promise<IssuedTicket> {
    return this.issue(vouchedClaims(vouched, this.#clock.now() / 1_000));
  }

  /** The identity that it was issued for, once. Throws `unauthorized`, `token_expired` or `unavailable`. */
  async redeem(ticket: string): Promise<Identity> {
    // A text that cannot have been a ticket costs the store no question.
    const text = isWhole(ticket) ? await answered(this.#store.take(digestOf(ticket))) : undefined;
    if (text === undefined) {
      // The answer does not say which of these it was: nothing is kept of a ticket that was used.
      const message = `The ticket was used, has expired or never existed: each opens one connection, within ${ticketSeconds} s.`;
      throw new RealtimeError('unauthorized', message);
    }
    return identityOf(JSON.parse(text) as Claims, this.#clock.now() / 1_000);
  }
}

/** Takes tickets wherever a token may stand, and passes everything else to `next`. */
export function takingTickets(tickets: Tickets, next: Authenticate): Authenticate {
  // A ticket that was cut or lengthened is still meant as one.
  return (token) => (token?.startsWith(prefix) === true ? tickets.redeem(token) : next(token));
}

function isWhole(ticket: string): boolean {
  return /^ticket_[A-Za-z0-9_-]{43}$/.test(ticket);
}

function digestOf(ticket: string): string {
  return createHash('sha256').update(ticket).digest('base64url');
}

/** A store that is away or slow holds up nobody for long. */
async function answered<Value>(answer: Promise<Value>): Promise<Value> {
  try {
    return await within(answer, storeMsMax, 'the answer of the ticket store');
  } catch (cause) {
    if (cause instanceof RealtimeError) throw cause;
    throw new RealtimeError('unavailable', 'Tickets cannot be kept or checked now; retry.', { cause });
  }
}
