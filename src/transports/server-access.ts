// Who may make server-side calls: the API key, compared in constant time, or everyone while no key is set outside
// production.

import { createHash, timingSafeEqual } from 'node:crypto';
import { RealtimeError } from '../protocol/realtime-error.ts';
import { bearerOf } from './request.ts';

/** Throws `unauthorized` unless the request may act for the backend. */
export type ServerAccess = (request: Request) => void;

export function serverAccess(apiKey: string | undefined, openWithoutKey: boolean): ServerAccess {
  if (apiKey === undefined) {
    return () => {
      if (!openWithoutKey) throw new RealtimeError('unauthorized', 'Server-side calls need API_KEY, which is not set.');
    };
  }
  const expected = digest(apiKey);
  return (request) => {
    const given = bearerOf(request);
    // Digests are equally long, so that neither content nor length of the key shows in the time taken.
    if (given === undefined || !timingSafeEqual(digest(given), expected)) {
      throw new RealtimeError('unauthorized', 'This call needs the API key.');
    }
  };
}

function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}
