// The keys that check tokens: a shared secret, a public key, or a key set behind a URL, each with the algorithms that
// are meant for it. A public key must never be taken for a shared secret, with which everyone could sign; so the kind
// of key decides which algorithms are allowed, and never the token.

import { createPublicKey, type KeyObject } from 'node:crypto';
import { importSPKI, type CryptoKey, type JWTVerifyGetKey } from 'jose';
import type { RemoteKeys } from './remote-keys.ts';

export interface TokenKeys {
  readonly algorithms: readonly string[];
  /** Remembers what it imported: importing a key costs more than checking a signature. */
  readonly key: JWTVerifyGetKey;
}

const secretHashes: Readonly<Record<string, string>> = { HS256: 'SHA-256', HS384: 'SHA-384', HS512: 'SHA-512' };
const rsaAlgorithms = ['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512'];
const curveAlgorithms: Readonly<Record<string, string>> = {
  prime256v1: 'ES256',
  secp384r1: 'ES384',
  secp521r1: 'ES512',
};
const remoteAlgorithms = [...rsaAlgorithms, ...Object.values(curveAlgorithms), 'EdDSA', 'Ed25519'];
const rsaBitsMin = 2_048;

export function secretKeys(secret: string): TokenKeys {
  const bytes = new TextEncoder().encode(secret);
  return {
    algorithms: Object.keys(secretHashes),
    key: remembered((algorithm) => {
      const hash = secretHashes[algorithm] ?? '';
      return crypto.subtle.importKey('raw', bytes, { name: 'HMAC', hash }, false, ['verify']);
    }),
  };
}

/** Throws for a text that has a `publicKeyFault`. */
export function publicKeys(pem: string): TokenKeys {
  const fault = publicKeyFault(pem);
  if (fault !== undefined) throw new Error(fault);
  const algorithms = algorithmsOf(createPublicKey(pem));
  return { algorithms, key: remembered((algorithm) => importSPKI(pem, algorithm)) };
}

export function remoteKeys(keys: RemoteKeys): TokenKeys {
  return { algorithms: remoteAlgorithms, key: (header, token) => keys.key(header, token) };
}

/** What is wrong with a public key in PEM form, if anything is. */
export function publicKeyFault(pem: string): string | undefined {
  let key: KeyObject;
  try {
    key = createPublicKey(pem);
  } catch {
    return 'the text between the lines BEGIN and END is not a key';
  }
  const bits = key.asymmetricKeyDetails?.modulusLength ?? rsaBitsMin;
  if (bits < rsaBitsMin) return `an RSA key of ${bits} bits can be broken; use one of at least ${rsaBitsMin} bits`;
  return algorithmsOf(key).length > 0
    ? undefined
    : 'this kind of key signs no tokens; use RSA, Ed25519, P-256, P-384 or P-521';
}

function algorithmsOf({ asymmetricKeyType: type, asymmetricKeyDetails: details }: KeyObject): readonly string[] {
  if (type === 'ed25519') return ['EdDSA', 'Ed25519'];
  if (type === 'rsa') return rsaAlgorithms;
  const algorithm = type === 'ec' ? curveAlgorithms[details?.namedCurve ?? ''] : undefined;
  return algorithm === undefined ? [] : [algorithm];
}

function remembered(importFor: (algorithm: string) => Promise<CryptoKey>): JWTVerifyGetKey {
  const known = new Map<string, CryptoKey>();
  return async ({ alg }) => {
    const key = known.get(alg) ?? (await importFor(alg));
    known.set(alg, key);
    return key;
  };
}
