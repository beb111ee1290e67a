// Verifies JSON Web Tokens with jose. A token is verified once per connection; what it grants is read from its claims.
// A token that is rejected gets a sentence that names the failed check, for its developer. The sentence never repeats
// any part of the token: a token is a secret, and the sentence ends up in logs.

import { errors, jwtVerify } from 'jose';
import { tokenless, type Authenticate, type Identity } from '../core/access.ts';
import { RealtimeError } from '../protocol/realtime-error.ts';
import type { Clock } from '../time/clock.ts';
import { clockToleranceSeconds, identityOf } from './claims.ts';
import type { TokenKeys } from './token-keys.ts';

export interface TokenAuthenticatorOptions {
  readonly keys: TokenKeys;
  /** The token's `aud` must name one of them; undefined leaves it unchecked. */
  readonly audiences?: readonly string[] | undefined;
  /** The token's `iss` must be one of them; undefined leaves it unchecked. */
  readonly issuers?: readonly string[] | undefined;
  /** Accepts connections without a token. */
  readonly anonymousAllowed: boolean;
  readonly clock: Clock;
}

/** Checked before the token is decoded, which costs: a frame may be much larger. */
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
      throw rejection(error, keys.algorithms);
    }
  };
  return (token) => {
    if (token === undefined) {
      if (anonymousAllowed) return tokenless;
      throw new RealtimeError('unauthorized');
    }
    if (token.length > tokenBytesMax) {
      throw new RealtimeError('unauthorized', `The token is larger than ${tokenBytesMax} bytes.`);
    }
    return verify(token);
  };
}

/** `algorithms`: those that the server's key is for. */
function rejection(error: unknown, algorithms: readonly string[]): RealtimeError {
  if (error instanceof RealtimeError) return error;
  if (error instanceof errors.JWTExpired) return new RealtimeError('token_expired', undefined, { cause: error });
  if (error instanceof errors.JOSEError || error instanceof TypeError) {
    return new RealtimeError('unauthorized', reasonOf(error, algorithms), { cause: error });
  }
  return new RealtimeError('unavailable', undefined, { cause: error });
}

function reasonOf(error: Error, algorithms: readonly string[]): string {
  if (error instanceof errors.JWTClaimValidationFailed) return claimReason(error);
  if (error instanceof errors.JOSEAlgNotAllowed) {
    return `The token’s "alg" is not allowed: this server’s key is for ${algorithms.join(', ')}.`;
  }
  if (error instanceof errors.JWSSignatureVerificationFailed) {
    return 'The token’s signature does not fit this server’s key.';
  }
  if (error instanceof errors.JWKSNoMatchingKey) {
    return 'The token is signed with a key that the key set does not hold; see its "kid" and "alg".';
  }
  if (error instanceof errors.JWKSMultipleMatchingKeys) {
    return 'The token fits several keys of the key set: it must name one in "kid".';
  }
  return 'The token is not a signed JSON Web Token.';
}

const failedChecks: Readonly<Record<string, string>> = {
  aud: 'The token is for others: its "aud" is not the audience of this server.',
  iss: 'The token’s "iss" is not the issuer that this server trusts.',
  nbf: 'The token is not valid yet: its "nbf" is in the future.',
};

function claimReason({ claim, reason }: errors.JWTClaimValidationFailed): string {
  if (reason === 'missing') return `The token has no "${claim}".`;
  if (reason === 'invalid') return `The token’s "${claim}" is not a number.`;
  return failedChecks[claim] ?? `The token’s "${claim}" is not as it must be.`;
}
