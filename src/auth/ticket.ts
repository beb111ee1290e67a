// What a ticket looks like: a prefix by which people and programs recognise it, then 256 random bits. Only its digest
// is ever kept, so that who reads the store, or a backup of it, holds no ticket.

import { createHash, randomBytes } from 'node:crypto';

/** No JSON Web Token begins so, nor holds an underscore before its first dot. */
const prefix = 'ticket_';
const secretBytes = 32;

export function newTicket(): string {
  return prefix + randomBytes(secretBytes).toString('base64url');
}

/** By its look alone. One that was cut or lengthened is still meant as a ticket. */
export function isTicket(token: string): boolean {
  return token.startsWith(prefix);
}

/** Undefined for a text that cannot have been a ticket, which nobody needs to be asked about. */
export function ticketDigest(ticket: string): string | undefined {
  if (!/^ticket_[A-Za-z0-9_-]{43}$/.test(ticket)) return undefined;
  return createHash('sha256').update(ticket).digest('base64url');
}
