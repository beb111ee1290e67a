// Kinds of settings: how the text of an environment variable becomes a value, and the words that say what is allowed.
// No setting is known here by its name. How a value of its own is read, each part knows itself: Redis URLs, addresses
// of proxies, public keys. So settings stand above these parts, and none of them knows a setting.

import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { parseDatabaseUrl, unencodedFault } from '../database/url.ts';
import { parseRedisUrl } from '../redis/url.ts';
import { publicKeyFault } from '../auth/token-keys.ts';
import { TrustedProxies } from '../http/client-address.ts';
import { redactUrl } from './redact.ts';

export interface Kind<T> {
  /** Completes "… is not", in a list of faults and in docs/settings.md. */
  readonly allowed: string;
  /** The value, or undefined when the text is not of this kind. Never throws. */
  parse(text: string): T | undefined;
  /** The text as a list of faults may show it; undefined when it may not be shown at all. */
  show(text: string): string | undefined;
  /** What exactly is wrong with a text that is not of this kind, without showing any of it. */
  why?(text: string): string | undefined;
}

const shownLengthMax = 60;

function shorten(text: string): string {
  return text.length <= shownLengthMax ? text : `${text.slice(0, shownLengthMax)}…`;
}

function plain<T>(allowed: string, parse: (text: string) => T | undefined, why?: Kind<T>['why']): Kind<T> {
  return { allowed, parse, show: shorten, ...(why && { why }) };
}

function within(value: number, min: number, max: number): number | undefined {
  return value >= min && value <= max ? value : undefined;
}

export function wholeNumber(min: number, max: number): Kind<number> {
  // Number() reads '', '0x10' and '1e3' too, which nobody means in a setting.
  return plain(`a whole number from ${min} to ${max}`, (text) =>
    /^\d{1,15}$/.test(text) ? within(Number(text), min, max) : undefined,
  );
}

/** Seconds with an optional fraction. */
export function seconds(min: number, max: number): Kind<number> {
  return plain(`a number of seconds from ${min} to ${max}`, (text) =>
    /^\d{1,9}(\.\d{1,3})?$/.test(text) ? within(Number(text), min, max) : undefined,
  );
}

/** From none, 0, to all, 1. */
export const share: Kind<number> = plain('a number from 0 to 1', (text) =>
  /^[01](\.\d{1,9})?$/.test(text) ? within(Number(text), 0, 1) : undefined,
);

export const truth: Kind<boolean> = plain('`true` or `false`', (text) => {
  if (text === 'true' || text === '1') return true;
  if (text === 'false' || text === '0') return false;
  return undefined;
});

export function oneOf<const T extends string>(choices: readonly T[]): Kind<T> {
  const names = choices.map((choice) => `\`${choice}\``).join(', ');
  return plain(`one of ${names}`, (text) => choices.find((choice) => choice === text));
}

export function setOf<const T extends string>(choices: readonly T[]): Kind<ReadonlySet<T>> {
  const names = choices.map((choice) => `\`${choice}\``).join(', ');
  return plain(`a comma-separated list of ${names}`, (text) => {
    const chosen = new Set<T>();
    for (const part of splitList(text)) {
      const known = choices.find((choice) => choice === part);
      if (known === undefined) return undefined;
      chosen.add(known);
    }
    return chosen.size === 0 ? undefined : chosen;
  });
}

export function matching(pattern: RegExp, allowed: string): Kind<string> {
  return plain(allowed, (text) => (pattern.test(text) ? text : undefined));
}

/** Whether the user or password holds what ends it, or a percent sign that begins no code. */
function unencoded(text: string): boolean {
  if (!URL.canParse(text)) return false;
  const { username, password, pathname, search, hash } = new URL(text);
  if (username === '' && `${pathname}${search}${hash}`.includes('@')) return true;
  return hash !== '' || [username, password, pathname].some((part) => /%(?![0-9a-f]{2})/i.test(part));
}

/** A URL of one of these schemes; its password is never shown. */
export function urlOf(...schemes: readonly string[]): Kind<string> {
  return {
    allowed: `a URL that begins with ${schemes.map((scheme) => `\`${scheme}://\``).join(' or ')}`,
    parse: (text) => {
      if (!URL.canParse(text) || unencoded(text)) return undefined;
      const { protocol } = new URL(text);
      return schemes.some((scheme) => protocol === `${scheme}:`) && text.includes('://') ? text : undefined;
    },
    show: (text) => (unencoded(text) ? '***' : shorten(redactUrl(text))),
    why: (text) => {
      const isScheme = schemes.some((scheme) => text.startsWith(`${scheme}://`));
      return isScheme && (!URL.canParse(text) || unencoded(text)) ? unencodedFault : undefined;
    },
  };
}

/** One of the forms that `database/url.ts` describes. */
export const databaseUrl: Kind<string> = {
  allowed: 'a PostgreSQL URL such as `postgres://user:password@host:5432/database`',
  // Parameters may hold a password.
  show: (text) => (unencoded(text) ? '***' : shorten(redactUrl(text.replace(/\?[^]*/, '')))),
  parse: (text) => (faultOf(parseDatabaseUrl, text) === undefined ? text : undefined),
  why: (text) =>
    /^(?!(?:postgres(?:ql)?|jdbc|prisma)\b)[a-z][\w+.-]*:/i.test(text) ? undefined : faultOf(parseDatabaseUrl, text),
};

/** One of the forms that `redis/url.ts` describes. */
export const redisUrl: Kind<string> = {
  allowed:
    'a Redis URL: `redis://user:password@host:6379/0`, `redis+cluster://host:6379,host:6379` or' +
    ' `redis+sentinel://host:26379,host:26379/master/0`; with TLS `rediss://`, `rediss+cluster://`, `rediss+sentinel://`',
  parse: (text) => (faultOf(parseRedisUrl, text) === undefined ? text : undefined),
  // A text that need not be a host may be a password that lost its `@`.
  show: (text) => {
    const [, scheme, account = '', hosts = '', path = ''] =
      /^(rediss?[a-z+]*:\/\/)([^]*@)?([^/?]*)(\/[\w/-]*)?/.exec(text) ?? [];
    if (scheme === undefined) return '***';
    const areHosts = hosts.split(',').every((host) => /^([\w.-]+|\[[\da-f:.]+\])(:\d{1,5})?$/i.test(host));
    return `${scheme}${account && '***@'}${areHosts ? shorten(hosts + path) : '***'}`;
  },
  why: (text) => (/^(?:rediss?\b|unix:|\/|valkeys?:|https?:)/.test(text) ? faultOf(parseRedisUrl, text) : undefined),
};

function faultOf(parse: (text: string) => unknown, text: string): string | undefined {
  try {
    parse(text);
    return undefined;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

/** Certificates in PEM form, or the path of a file that holds them. The value is the PEM text. */
export const certificates: Kind<string> = {
  allowed:
    'the path of a file with certificates in PEM form, or these themselves (line breaks may be written as `\\n`)',
  parse: (text) => {
    try {
      const pem = text.startsWith('-----') ? text.replaceAll('\\n', '\n') : readFileSync(text, 'utf8');
      return new X509Certificate(pem).ca ? pem : undefined;
    } catch {
      return undefined;
    }
  },
  show: (text) => shorten(text),
  why: (text) => {
    if (text.startsWith('-----')) return undefined;
    try {
      readFileSync(text);
      return 'the file holds no certificate of an authority';
    } catch {
      return 'the file cannot be read';
    }
  },
};

/** Origins as browsers send them, or the single word `*`: a pattern would be compared as it is, and match no page. */
export const origins: Kind<readonly string[]> = plain(
  'a comma-separated list of origins such as `https://app.example.com`, or `*`',
  (text) => {
    const parts = splitList(text);
    const valid = parts.every(isOrigin) || (parts.length === 1 && parts[0] === '*');
    return valid && parts.length > 0 ? parts.map((part) => part.toLowerCase()) : undefined;
  },
  (text) => (text.includes('*') ? '`*` stands alone, and not for a part of a name' : undefined),
);

/** Names or URLs, none of which holds a comma. */
export const textList: Kind<readonly string[]> = plain('a comma-separated list', (text) => {
  const parts = splitList(text);
  return parts.length > 0 ? parts : undefined;
});

/** Proxies that are believed about a client's address. */
export const addressRanges: Kind<TrustedProxies> = plain(
  'a comma-separated list of addresses, ranges such as `10.0.0.0/8`, `loopback` and `private`',
  (text) => TrustedProxies.parse(text),
);

/** Any text, never shown. One of blanks alone is no secret, and is what a template leaves whose value is missing. */
export const secretText: Kind<string> = {
  allowed: 'a text',
  parse: (text) => (text.trim() === '' ? undefined : text),
  show: () => undefined,
  why: () => 'it is blank',
};

/** A key that travels in an `Authorization: Bearer` header, never shown. */
export const bearerKey: Kind<string> = {
  allowed: 'printable ASCII without spaces',
  parse: (text) => (/^[\x21-\x7e]+$/.test(text) ? text : undefined),
  show: () => undefined,
};

/** A public key in PEM form. Where an environment cannot hold line breaks they may be written as `\n`. */
export const publicKey: Kind<string> = {
  allowed: 'a public key in PEM form (`-----BEGIN PUBLIC KEY-----` …; line breaks may be written as `\\n`)',
  parse: (text) => {
    const pem = pemOf(text);
    return pem === undefined || publicKeyFault(pem) !== undefined ? undefined : pem;
  },
  show: () => undefined,
  why: (text) => {
    const pem = pemOf(text);
    return pem === undefined ? undefined : publicKeyFault(pem);
  },
};

function pemOf(text: string): string | undefined {
  const pem = text.replaceAll('\\n', '\n').trim();
  return /^-----BEGIN PUBLIC KEY-----\s[A-Za-z0-9+/=\s]+-----END PUBLIC KEY-----$/.test(pem) ? pem : undefined;
}

function splitList(text: string): string[] {
  return text
    .split(',')
    .map((part) => part.trim())
    .filter((part) => part !== '');
}

function isOrigin(text: string): boolean {
  if (!URL.canParse(text)) return false;
  const { protocol, origin } = new URL(text);
  return (protocol === 'http:' || protocol === 'https:') && origin === text.toLowerCase() && !text.includes('*');
}
