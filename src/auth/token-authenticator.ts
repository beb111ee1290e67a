// Verifies JSON Web Tokens with jose: by a shared secret, a public key, or a key set fetched from a URL. A token is
// verified once per connection; what it grants is read from its claims by grants.ts.

import { createPublicKey } from 'node:crypto';
import { createRemoteJWKSet, errors, jwtVerify, type JWTPayload, type JWTVerifyGetKey } from 'jose';
import { anonymous, type Authenticate, type Identity } from '../core/access.ts';
import { RealtimeError } from '../protocol/realtime-error.ts';
import { readGrants } from './grants.ts';

/** Exactly one of the keys, or none. */
export interface TokenKeys {
  readonly secret?: string | undefined;
  readonly publicKey?: string | undefined;
  readonly jwksUrl?: string | undefined;
  /** Lets connections without a token in, as nobody. */
  readonly anonymousAllowed: boolean;
}

type Verify = (token: string) => Promise<JWTPayload>;

/** The algorithms of each kind of key: one meant for signatures must never be taken as a shared secret. */
const secretAlgorithms = ['HS256', 'HS384', 'HS512'];
const publicAlgorithms = ['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512', 'ES256', 'ES384', 'ES512', 'EdDSA'];
/** Clocks of two machines are seldom closer. */
const clockToleranceSeconds = 5;
const userLengthMax = 128;

/** Undefined without a key: then there is nothing to check a token by. */
export function tokenAuthenticator(keys: TokenKeys): Authenticate | undefined {
  const verify = verifierOf(keys);
  if (verify === undefined) return undefined;
  return (token) => {
    if (token !== undefined) return identityOf(verify, token);
    if (keys.anonymousAllowed) return anonymous;
    throw new RealtimeError('unauthorized');
  };
}

function verifierOf({ secret, publicKey, jwksUrl }: TokenKeys): Verify | undefined {
  const options = { clockTolerance: clockToleranceSeconds };
  if (secret !== undefined) {
    const key = new TextEncoder().encode(secret);
    return async (token) => (await jwtVerify(token, key, { ...options, algorithms: secretAlgorithms })).payload;
  }
  if (publicKey !== undefined) {
    const key = createPublicKey(publicKey);
    return async (token) => (await jwtVerify(token, key, { ...options, algorithms: publicAlgorithms })).payload;
  }
  if (jwksUrl === undefined) return undefined;
  const keySet: JWTVerifyGetKey = createRemoteJWKSet(new URL(jwksUrl), { timeoutDuration: 5_000 });
  return async (token) => (await jwtVerify(token, keySet, { ...options, algorithms: publicAlgorithms })).payload;
}

async function identityOf(verify: Verify, token: string): Promise<Identity> {
  const claims = await verifyOrRefuse(verify, token);
  const { sub, exp } = claims;
  if (typeof sub !== 'string' || sub === '' || sub.length > userLengthMax) {
    throw new RealtimeError('unauthorized', 'The token names no user in "sub".');
  }
  return { user: sub, expiresAt: exp, grants: readGrants(claims['channels']), claims };
}

async function verifyOrRefuse(verify: Verify, token: string): Promise<JWTPayload> {
  try {
    return await verify(token);
  } catch (error) {
    if (error instanceof errors.JWTExpired) throw new RealtimeError('token_expired');
    if (error instanceof errors.JWKSTimeout) throw new RealtimeError('unavailable', undefined, { cause: error });
    if (error instanceof errors.JOSEError || error instanceof TypeError) {
      throw new RealtimeError('unauthorized', 'The token is not valid.', { cause: error });
    }
    throw new RealtimeError('unavailable', undefined, { cause: error });
  }
}
