// Tokens for tests: good ones by the library that everyone uses, bad ones put together by hand, since no library makes
// them. And a real HTTP host of key sets that can be told to misbehave.

import { createHmac } from 'node:crypto';
import { SignJWT, exportJWK, generateKeyPair, type CryptoKey, type JWK } from 'jose';

export const secret = 'a secret of these tests that is long enough';

export function nowSeconds(): number {
  return Math.floor(Date.now() / 1_000);
}

/** Good for ten minutes, unless told otherwise. */
export function tokenOf(
  claims: Record<string, unknown>,
  expiresAt: number = nowSeconds() + 600,
  key = secret,
): Promise<string> {
  return new SignJWT(claims)
    .setProtectedHeader({ alg: 'HS256' })
    .setExpirationTime(expiresAt)
    .sign(new TextEncoder().encode(key));
}

/** Rightly signed, whatever it says. Texts are taken as they are. */
export function handmade(header: object | string, claims: object | string, key: string | Buffer = secret): string {
  const parts = [header, claims].map((part) => {
    return Buffer.from(typeof part === 'string' ? part : JSON.stringify(part)).toString('base64url');
  });
  const signature = createHmac('sha256', key).update(parts.join('.')).digest('base64url');
  return [...parts, signature].join('.');
}

export const hs256 = { alg: 'HS256' };

export interface NamedKey {
  readonly kid: string;
  readonly privateKey: CryptoKey;
  readonly jwk: JWK;
}

export async function namedKey(kid: string): Promise<NamedKey> {
  const { privateKey, publicKey } = await generateKeyPair('ES256', { extractable: true });
  return { kid, privateKey, jwk: { ...(await exportJWK(publicKey)), kid, alg: 'ES256', use: 'sig' } };
}

export function tokenBy({ kid, privateKey }: NamedKey, claims: Record<string, unknown> = {}): Promise<string> {
  return new SignJWT({ sub: 'ann', ...claims })
    .setProtectedHeader({ alg: 'ES256', kid })
    .setExpirationTime(nowSeconds() + 600)
    .sign(privateKey);
}

type Answer = () => Response | Promise<Response>;

/** A host of a key set. Its port stays the same while it is away. */
export class KeySetHost {
  /** Requests so far. */
  asked = 0;
  answer: Answer;
  #server: Bun.Server<undefined> | undefined;
  readonly port: number;

  constructor(...keys: NamedKey[]) {
    this.answer = KeySetHost.keys(...keys);
    this.#server = this.#listen(0);
    this.port = this.#server.port ?? 0;
  }

  static keys(...keys: NamedKey[]): Answer {
    return () => Response.json({ keys: keys.map(({ jwk }) => jwk) });
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}/keys`;
  }

  goAway(): Promise<void> | undefined {
    const server = this.#server;
    this.#server = undefined;
    return server?.stop(true);
  }

  comeBack(): void {
    this.#server ??= this.#listen(this.port);
  }

  #listen(port: number): Bun.Server<undefined> {
    return Bun.serve({
      hostname: '127.0.0.1',
      port,
      idleTimeout: 60,
      fetch: () => {
        this.asked++;
        return this.answer();
      },
    });
  }
}
