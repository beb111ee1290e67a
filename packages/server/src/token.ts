// Tokens for the clients of a server with JWT_SECRET: JSON Web Tokens, signed by HMAC-SHA-256 as every runtime can.

export interface TokenClaims {
  /** The user. */
  readonly sub?: string;
  /** Which channels, or patterns with `*`, and what is allowed there. */
  readonly channels?: Readonly<Record<string, readonly ('subscribe' | 'publish' | 'history' | 'presence')[]>>;
  /** Further claims, for rules that read them. */
  readonly [claim: string]: unknown;
}

export interface TokenOptions {
  /** The server's `JWT_SECRET`. */
  readonly secret: string;
  /** Seconds for which it is good. Default: 600. */
  readonly seconds?: number;
}

/**
 * A token of a user. Clients get a new one from their `token` function before it ends, so it need not last long.
 *
 * @example
 * const token = await signToken({ sub: 'ann', channels: { 'chat:*': ['subscribe', 'publish'] } }, { secret });
 */
export async function signToken(claims: TokenClaims, { secret, seconds = 600 }: TokenOptions): Promise<string> {
  if (secret === '') throw new TypeError('The secret is empty.');
  const now = Math.floor(Date.now() / 1_000);
  const text = new TextEncoder();
  const key = await crypto.subtle.importKey('raw', text.encode(secret), { name: 'HMAC', hash: 'SHA-256' }, false, [
    'sign',
  ]);
  const signed = [
    { alg: 'HS256', typ: 'JWT' },
    { iat: now, exp: now + seconds, ...claims },
  ]
    .map((member) => base64url(text.encode(JSON.stringify(member))))
    .join('.');
  const signature = await crypto.subtle.sign('HMAC', key, text.encode(signed));
  return `${signed}.${base64url(new Uint8Array(signature))}`;
}

function base64url(bytes: Uint8Array): string {
  let binary = '';
  for (const byte of bytes) binary += String.fromCharCode(byte);
  return btoa(binary).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '');
}
