// Whom a backend vouches for, as claims: what a token would say, had the backend a key to sign one with.

import { RealtimeError } from '../protocol/realtime-error.ts';
import { isUser, userLengthMax, type Claims } from './claims-identity.ts';
import { readGrants } from './grants.ts';

/** As it came, unchecked. */
export interface Vouched {
  readonly user?: unknown;
  readonly channels?: unknown;
  readonly claims?: unknown;
  readonly expires?: unknown;
}

/** Each has a member of its own, which could say otherwise. */
const ownMembers = ['sub', 'exp', 'channels'];

/** Throws `bad_request`, which names the member. */
export function vouchedClaims({ user, channels, claims = {}, expires }: Vouched, nowSeconds: number): Claims {
  if (!isUser(user)) {
    throw malformed(`"user" is a text of 1 to ${userLengthMax} characters, none of them a control one.`);
  }
  if (!areGrants(channels)) throw malformed('"channels" is {channel pattern: [actions]}.');
  if (typeof claims !== 'object' || claims === null || Array.isArray(claims)) {
    throw malformed('"claims" is an object.');
  }
  if (ownMembers.some((name) => Object.hasOwn(claims, name))) {
    throw malformed('"claims" holds no "sub", "exp" or "channels": say "user", "expires" and "channels" instead.');
  }
  if (expires !== undefined && !(typeof expires === 'number' && Number.isFinite(expires) && expires > nowSeconds)) {
    throw malformed('"expires" is a time ahead, in Unix seconds.');
  }
  return {
    ...claims,
    sub: user,
    ...(channels === undefined ? {} : { channels }),
    ...(expires === undefined ? {} : { exp: expires }),
  };
}

function areGrants(channels: unknown): boolean {
  try {
    readGrants(channels);
    return true;
  } catch (error) {
    if (error instanceof RealtimeError) return false;
    throw error;
  }
}

function malformed(message: string): RealtimeError {
  return new RealtimeError('bad_request', message);
}
