// What the parameters of DATABASE_URL about TLS mean to the driver: its own words, or options of the TLS socket. Reads the
// files that they name.

import { readFileSync } from 'node:fs';

export type DatabaseTls = false | 'prefer' | 'require' | TlsOptions;

export interface TlsOptions {
  readonly ca?: string;
  readonly cert?: string;
  readonly key?: string;
  readonly rejectUnauthorized: boolean;
  /** Given where the certificate may be for another host. */
  readonly checkServerIdentity?: () => undefined;
}

interface Files {
  readonly ca: string | undefined;
  readonly cert: string | undefined;
  readonly key: string | undefined;
}

/** libpq's own meanings, but that no mode is `disable`. */
export function tlsOf(mode: string | undefined, ssl: string | undefined, files: Files): DatabaseTls {
  const named = Object.fromEntries(
    Object.entries(files).flatMap(([name, path]) =>
      path === undefined || (name === 'ca' && path === 'system') ? [] : [[name, fileOf(path, name as keyof Files)]],
    ),
  );
  const some = Object.keys(named).length > 0;
  switch (mode ?? (ssl === 'true' || ssl === '1' ? 'require' : ssl)) {
    case undefined:
    case 'disable':
    case 'false':
    case '0':
      if (some || files.ca !== undefined) throw new Error('a certificate is named: add sslmode=verify-full');
      return false;
    case 'allow':
    case 'prefer':
      return some ? { ...named, rejectUnauthorized: false } : 'prefer';
    case 'no-verify':
      return some ? { ...named, rejectUnauthorized: false } : 'require';
    case 'require':
      if (files.ca === undefined) return some ? { ...named, rejectUnauthorized: false } : 'require';
      return files.ca === 'system' ? { ...named, rejectUnauthorized: true } : { ...named, ...anyHost };
    case 'verify-ca':
      return { ...named, ...anyHost };
    case 'verify-full':
      return { ...named, rejectUnauthorized: true };
    default:
      throw new Error('sslmode must be disable, prefer, require, verify-ca or verify-full');
  }
}

const anyHost = { rejectUnauthorized: true, checkServerIdentity: (): undefined => undefined };

interface TlsFile {
  readonly parameter: string;
  readonly mark: RegExp;
  readonly content: string;
}

const certificate = { mark: /-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----/, content: 'a certificate' };
const tlsFiles: Readonly<Record<keyof Files, TlsFile>> = {
  ca: { parameter: 'sslrootcert', ...certificate },
  cert: { parameter: 'sslcert', ...certificate },
  key: { parameter: 'sslkey', mark: /-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----/, content: 'a private key' },
};

function fileOf(path: string, name: keyof Files): string {
  const { parameter, mark, content } = tlsFiles[name];
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch {
    throw new Error(`the file that ${parameter} names cannot be read`);
  }
  // Of a file of another kind the TLS library would say that the server's certificate is not trusted.
  if (!mark.test(text)) throw new Error(`the file that ${parameter} names does not hold ${content} in the PEM format`);
  return text;
}
