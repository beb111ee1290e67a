// Verifies JSON Web Tokens with jose. A token is verified once per connection; what it grants is read from its claims.

import { jwtVerify } from 'jose';
import { stranger, type Authenticate, type Identity } from '../core/access.ts';
import type { Clock } from '../time/clock.ts';
import { RealtimeError } from '../protocol/realtime-error.ts';
import { clockToleranceSeconds, identityOf } from './claims-identity.ts';
import type { TokenKeys } from './token-keys.ts';
import { tokenRefusal } from './token-refusal.ts';

export interface TokenAuthenticatorOptions {
  readonly keys: TokenKeys;
  /** One of them must be the token's `aud`, or among its several; undefined leaves it unchecked. */
  readonly audiences?: readonly string[] | undefined;
  /** One of them must be the token's `iss`. */
  readonly issuers?: readonly string[] | undefined;
  /** Lets connections without a token in, as nobody. */
  readonly anonymousAllowed: boolean;
  readonly clock: Clock;
}

/** Before anything of it is read: a frame may be much larger, and decoding costs. */
const tokenBytesMax = 8 << 10;

export function tokenAuthenticator(options: TokenAuthenticatorOptions): Authenticate {
  const { keys, audiences, issuers, anonymousAllowed, clock } = options;
  const checks = {
    algorithms: [...keys.algorithms],
    clockTolerance: clockToleranceSeconds,
    ...(audiences === undefined ? {} : { audience: [...audiences] }),
    ...(issuers === undefined ? {} : { issuer: [...issuers] }),
  };
  const verify = async (token: string): Promise<Identity> => {
    try {
      const { payload } = await jwtVerify(token, keys.key, checks);
      return identityOf(payload, clock.now() / 1_000);
    } catch (error) {
      throw tokenRefusal(error, keys.algorithms);
    }
  };
  return (token) => {
    if (token === undefined) {
      if (anonymousAllowed) return stranger;
      throw new RealtimeError('unauthorized');
    }
    if (token.length > tokenBytesMax) {
      throw new RealtimeError('unauthorized', `The token is larger than ${tokenBytesMax} bytes.`);
    }
    return verify(token);
  };
}
