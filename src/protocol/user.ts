// What a user may be called. The same everywhere that a name comes in: in a token, with a ticket, in an address of the
// API.

import { hasAtMost } from './characters.ts';

export const userLengthMax = 128;

/** Completes "… is not". */
export const userShape = `a text of 1 to ${userLengthMax} characters without control characters or broken UTF-8`;

export function isUser(value: unknown): value is string {
  // Half a surrogate pair is no text either: no two systems print it alike. U+FFFD stands where a reader met bytes that are
  // no UTF-8, such as `%E9` in an address. Users with different such ids would share one channel.
  return (
    typeof value === 'string' && value !== '' && hasAtMost(value, userLengthMax) && !/[\p{Cc}\p{Cs}\uFFFD]/u.test(value)
  );
}
