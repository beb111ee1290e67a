// Kinds of settings: how the text of an environment variable becomes a value, and the words that say what is allowed.
// Knows no setting by name.

import { redactUrl } from './redact.ts';

export interface Kind<T> {
  /** Completes "… is not", in a list of faults and in the README's table. */
  readonly allowed: string;
  /** The value, or undefined when the text is not of this kind. Never throws. */
  parse(text: string): T | undefined;
  /** The text as a list of faults may show it; undefined when it may not be shown at all. */
  show(text: string): string | undefined;
}

const shownLengthMax = 60;

function shorten(text: string): string {
  return text.length <= shownLengthMax ? text : `${text.slice(0, shownLengthMax)}…`;
}

function plain<T>(allowed: string, parse: (text: string) => T | undefined): Kind<T> {
  return { allowed, parse, show: shorten };
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

/** A URL of one of these schemes; its password is never shown. */
export function urlOf(...schemes: readonly string[]): Kind<string> {
  return {
    allowed: `a URL that begins with ${schemes.map((scheme) => `\`${scheme}://\``).join(' or ')}`,
    parse: (text) => {
      if (!URL.canParse(text)) return undefined;
      const { protocol } = new URL(text);
      return schemes.some((scheme) => protocol === `${scheme}:`) && text.includes('://') ? text : undefined;
    },
    show: (text) => shorten(redactUrl(text)),
  };
}

/** Origins as browsers send them, or the single word `*`. */
export const origins: Kind<readonly string[]> = plain(
  'a comma-separated list of origins such as `https://app.example.com`, or `*`',
  (text) => {
    const parts = splitList(text);
    const valid = parts.every((part) => part === '*' || isOrigin(part));
    return valid && parts.length > 0 ? parts.map((part) => part.toLowerCase()) : undefined;
  },
);

/** Any text, never shown. */
export const secretText: Kind<string> = { allowed: 'a text', parse: (text) => text, show: () => undefined };

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
    const pem = text.replaceAll('\\n', '\n').trim();
    return /^-----BEGIN PUBLIC KEY-----\s[A-Za-z0-9+/=\s]+-----END PUBLIC KEY-----$/.test(pem) ? pem : undefined;
  },
  show: () => undefined,
};

function splitList(text: string): string[] {
  return text
    .split(',')
    .map((part) => part.trim())
    .filter((part) => part !== '');
}

function isOrigin(text: string): boolean {
  if (!URL.canParse(text)) return false;
  const { protocol, origin } = new URL(text);
  return (protocol === 'http:' || protocol === 'https:') && origin === text.toLowerCase();
}
