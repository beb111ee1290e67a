// What settings about tokens get wrong together, or safely enough to start and too loosely to stay silent.

import { publicKeyFault } from '../auth/token-keys.ts';

export interface TokenSettings {
  readonly production: boolean;
  readonly jwtSecret: string | undefined;
  readonly jwksUrl: string | undefined;
  readonly jwtPublicKey: string | undefined;
  readonly jwtAudience: readonly string[] | undefined;
  readonly jwtIssuer: readonly string[] | undefined;
}

/** `hasKey`: one was given, be it a faulty one. */
export function tokenFaults(settings: TokenSettings, hasKey: boolean): string[] {
  const { production, jwtSecret, jwksUrl, jwtPublicKey, jwtAudience, jwtIssuer } = settings;
  const faults: string[] = [];
  const fault = jwtPublicKey === undefined ? undefined : publicKeyFault(jwtPublicKey);
  if (fault !== undefined) faults.push(`JWT_PUBLIC_KEY: ${fault}`);
  if (jwtSecret?.includes('-----BEGIN ') === true) {
    faults.push('JWT_SECRET holds a key in PEM form: a public one goes to JWT_PUBLIC_KEY, and a private one nowhere');
  }
  for (const [name, value] of Object.entries({ JWT_AUDIENCE: jwtAudience, JWT_ISSUER: jwtIssuer })) {
    if (value !== undefined && !hasKey) {
      faults.push(`${name} needs one of JWT_SECRET, JWKS_URL and JWT_PUBLIC_KEY: without a key no token is checked`);
    }
  }
  if (production && jwksUrl !== undefined && isPlain(jwksUrl) && !isNear(jwksUrl)) {
    faults.push('JWKS_URL: in production keys come over https, since whoever is on the way could give others');
  }
  return faults;
}

export function tokenWarnings({ production, jwtSecret, jwksUrl }: TokenSettings): string[] {
  const warnings: string[] = [];
  if (jwtSecret !== undefined && jwtSecret.length < 32) {
    warnings.push('JWT_SECRET has fewer than 32 characters: such a key can be guessed from any token.');
  }
  if (production && jwksUrl !== undefined && isPlain(jwksUrl) && !isLoopback(jwksUrl)) {
    warnings.push('JWKS_URL is plain http: whoever is on the way to that host can give other keys.');
  }
  return warnings;
}

function isPlain(url: string): boolean {
  return new URL(url).protocol === 'http:';
}

function isLoopback(url: string): boolean {
  const { hostname } = new URL(url);
  return hostname === 'localhost' || hostname === '[::1]' || /^127(\.\d+){3}$/.test(hostname);
}

/** This machine, or a name or an address that the internet does not know: a cluster's own services speak plainly. */
function isNear(url: string): boolean {
  const { hostname } = new URL(url);
  if (isLoopback(url) || !/[.:]/.test(hostname)) return true;
  // A name of the internet may begin with digits, too.
  return /\.(local|internal|svc)$|^\[f[cd]|^(10\.\d+|192\.168|172\.(1[6-9]|2\d|3[01]))(\.\d+){2}$/.test(hostname);
}
