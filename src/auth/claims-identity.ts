// Who claims speak of. They are believed here: whoever calls has checked a signature, or keeps them under a ticket.

import type { Identity } from '../core/access.ts';
import { RealtimeError } from '../protocol/realtime-error.ts';
import { sharedGrants } from './shared-grants.ts';

export type Claims = Readonly<Record<string, unknown>>;

/** Clocks of two machines are seldom closer. */
export const clockToleranceSeconds = 5;
export const userLengthMax = 128;

/** A page needs a moment to get a fresh token; to be told long before is no use. */
const warningSecondsMin = 5;
const warningSecondsMax = 30;

/** Throws `unauthorized`, which says what is wrong, or `token_expired`. */
export function identityOf(claims: Claims, nowSeconds: number): Identity {
  const { sub, exp, channels } = claims;
  if (sub === undefined) throw refused('The token names no user: it has no "sub".');
  if (!isUser(sub)) {
    throw refused(`The token’s "sub" is not a text of 1 to ${userLengthMax} characters, none of them a control one.`);
  }
  const { grants, channels: held } = sharedGrants(channels);
  const identity = { user: sub, grants, claims: held === channels ? claims : { ...claims, channels: held } };
  if (exp === undefined) return identity;
  if (typeof exp !== 'number' || !Number.isFinite(exp)) throw refused('The token’s "exp" is not a number.');
  if (exp <= nowSeconds - clockToleranceSeconds) throw new RealtimeError('token_expired');
  // One that is let in late, since clocks differ, would else be shown the door at once.
  const expiresAt = exp > nowSeconds ? exp : exp + clockToleranceSeconds;
  const warning = Math.min(warningSecondsMax, Math.max(warningSecondsMin, (expiresAt - nowSeconds) / 10));
  return { ...identity, expiresAt, warnAt: expiresAt - warning };
}

export function isUser(value: unknown): value is string {
  // Half a surrogate pair is no text either: no two systems print it alike.
  return typeof value === 'string' && value !== '' && value.length <= userLengthMax && !/[\p{Cc}\p{Cs}]/u.test(value);
}

function refused(message: string): RealtimeError {
  return new RealtimeError('unauthorized', message);
}
