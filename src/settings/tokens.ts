// The settings about tokens, checked together: faults, with which the server does not start, and warnings.

export interface TokenSettings {
  readonly production: boolean;
  readonly jwtSecret: string | undefined;
  readonly jwksUrl: string | undefined;
  readonly jwtAudience: readonly string[] | undefined;
  readonly jwtIssuer: readonly string[] | undefined;
}

/** `hasKey`: a token key is set, even if its value is faulty. */
export function tokenFaults(settings: TokenSettings, hasKey: boolean): string[] {
  const { production, jwtSecret, jwksUrl, jwtAudience, jwtIssuer } = settings;
  const faults: string[] = [];
  if (jwtSecret?.includes('-----BEGIN ') === true) {
    faults.push(
      'JWT_SECRET holds a key in PEM form: put a public key into JWT_PUBLIC_KEY, and leave a private key with whoever' +
        ' signs the tokens',
    );
  }
  for (const [name, value] of Object.entries({ JWT_AUDIENCE: jwtAudience, JWT_ISSUER: jwtIssuer })) {
    if (value !== undefined && !hasKey) {
      faults.push(`${name} is set without a token key: set JWT_SECRET, JWKS_URL or JWT_PUBLIC_KEY, or remove ${name}`);
    }
  }
  if (production && jwksUrl !== undefined && isPlain(jwksUrl) && !isNear(jwksUrl)) {
    faults.push('JWKS_URL is plain http: use https in production, since anyone on the way could replace the keys');
  }
  return faults;
}

export function tokenWarnings({ production, jwtSecret, jwksUrl }: TokenSettings): string[] {
  const warnings: string[] = [];
  if (jwtSecret !== undefined && jwtSecret.length < 32) {
    warnings.push(
      'JWT_SECRET has fewer than 32 characters: anyone with a token can guess such a key. Use a longer one.',
    );
  }
  if (production && jwksUrl !== undefined && isPlain(jwksUrl) && !isLoopback(jwksUrl)) {
    warnings.push('JWKS_URL is plain http: anyone on the way to that host can replace the keys. Use https if you can.');
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

/** This machine, or a name or an address that is unknown on the internet: services inside a cluster use plain http. */
function isNear(url: string): boolean {
  const { hostname } = new URL(url);
  if (isLoopback(url) || !/[.:]/.test(hostname)) return true;
  // A name on the internet may begin with digits too.
  return /\.(local|internal|svc)$|^\[f[cd]|^(10\.\d+|192\.168|172\.(1[6-9]|2\d|3[01]))(\.\d+){2}$/.test(hostname);
}
