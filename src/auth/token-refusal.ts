// Why a token is refused, in words that tell its developer which check failed. They never repeat any of the token: it
// is a secret, and the words end up in logs.

import { errors } from 'jose';
import { RealtimeError } from '../protocol/realtime-error.ts';

/** `algorithms` are those that the server's key is for. */
export function tokenRefusal(error: unknown, algorithms: readonly string[]): RealtimeError {
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
    return `The token’s "alg" is none that this server’s key is for: ${algorithms.join(', ')}.`;
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
