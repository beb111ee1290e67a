// Channel patterns of rules and tokens: which are well-formed, what they match, and what they capture.
//
//   *        any characters, also none
//   {name}   one whole part of the name, and what it captures: parts stand between `:`, and in a pattern that has a `/`
//            itself, between `/` too
//
// Captures decide who owns a channel, so a name must match in one way only: a capture is a whole part, and beside
// captures there is at most one `*`. With `{a}-{b}` or `*:{a}:*`, whoever chooses a name could move the parts.

import { channelLengthMax, channelPart, isChannelName, partValue } from '../protocol/channel.ts';

const characters = /^\$?(?:[A-Za-z0-9_.:\-@/*]|%[0-9A-Fa-f]{2})+$/;
const capturePattern = /\{([^{}]*)\}/g;
const captureName = /^[A-Za-z_][A-Za-z0-9_]{0,63}$/;

/** What is wrong with the text as a pattern; undefined when nothing is. */
export function patternFault(text: unknown): string | undefined {
  if (typeof text !== 'string') return 'is not a channel name or pattern';
  const names = captureNames(text);
  const bare = text.replace(capturePattern, '-');
  if (text.length > channelLengthMax || !characters.test(bare)) return `"${text}" is not a channel name or pattern`;
  const badName = names.find((name) => !captureName.test(name));
  if (badName !== undefined) return `"${text}": {${badName}} is not a capture: its name has letters, digits and _`;
  if (new Set(names).size < names.length) return `"${text}": each capture has a name of its own`;
  if (/[^:/]\{|\}[^:/]/.test(text)) return `"${text}": a capture is a whole part, between ":" or "/"`;
  if (names.length > 0 && text.split(/\*+/).length > 2) return `"${text}": beside captures there is one "*" at most`;
  return undefined;
}

function captureNames(text: string): string[] {
  return Array.from(text.matchAll(capturePattern), ([, name = '']) => name);
}

export class ChannelPattern {
  readonly text: string;
  /** An anchored regular expression that JavaScript and PostgreSQL read alike, since both sides apply it. */
  readonly source: string;
  readonly captures: readonly string[];
  /** What stands between the `*`. */
  readonly #pieces: readonly string[];
  readonly #expression: RegExp | undefined;

  constructor(text: string) {
    const fault = patternFault(text);
    if (fault !== undefined) throw new Error(fault);
    const part = text.includes('/') ? '([^:/]+)' : '([^:]+)';
    this.text = text;
    this.captures = captureNames(text);
    this.#pieces = text.split(/\*+/);
    const source = text.replace(capturePattern, '{}').replace(/[.$]/g, '\\$&').replace(/\*+/g, '.*');
    this.source = `^${source.replaceAll('{}', () => part)}$`;
    this.#expression = this.captures.length === 0 ? undefined : new RegExp(this.source);
  }

  matches(channel: string): boolean {
    return this.#expression === undefined ? this.#fits(channel) : this.#expression.test(channel);
  }

  /** The values that the captures hold, in an object without a prototype; empty for a name that does not match. */
  capture(channel: string): Readonly<Record<string, string>> {
    const found: Record<string, string> = Object.create(null) as Record<string, string>;
    const parts = this.#expression?.exec(channel);
    this.captures.forEach((name, index) => {
      const part = parts?.[index + 1];
      if (part !== undefined) found[name] = partValue(part) ?? part;
    });
    return found;
  }

  /** Whether the name matches, has captures, and the value of each is as it should be. */
  everyCapture(channel: string, holds: (name: string, value: string) => boolean): boolean {
    const parts = this.#expression?.exec(channel);
    if (parts === null || parts === undefined) return false;
    return this.captures.every((name, index) => {
      const value = partValue(parts[index + 1] ?? '');
      return value !== undefined && holds(name, value);
    });
  }

  /** The name whose captures are these values; undefined where one is missing, or where there is no such name. */
  fill(values: Readonly<Record<string, unknown>>): string | undefined {
    let isWhole = true;
    const name = this.text.replace(capturePattern, (_text, capture: string) => {
      const value = Object.hasOwn(values, capture) ? values[capture] : undefined;
      const isValue = (typeof value === 'string' && value !== '') || Number.isSafeInteger(value);
      isWhole &&= isValue;
      return isValue ? channelPart(String(value)) : '';
    });
    return isWhole && isChannelName(name) && this.matches(name) ? name : undefined;
  }

  /** Whether whatever the other one matches is surely matched by this one too. */
  covers(other: ChannelPattern): boolean {
    if (this.text === other.text) return true;
    const [start = '', end] = this.#pieces;
    return (
      this.captures.length === 0 && this.#pieces.length === 2 && end === '' && other.literalStart.startsWith(start)
    );
  }

  /** Whether one name may match both; says so rather than not. */
  mayMeet(other: ChannelPattern): boolean {
    const [here, there] = [this.literalStart, other.literalStart];
    if (this.#isName && other.#isName) return here === there;
    if (this.#isName) return other.matches(this.text);
    if (other.#isName) return this.matches(other.text);
    return here.startsWith(there) || there.startsWith(here);
  }

  get #isName(): boolean {
    return this.literalStart === this.text;
  }

  /** What every name that matches begins with. */
  get literalStart(): string {
    return /^[^*{]*/.exec(this.text)?.[0] ?? '';
  }

  /** Without a regular expression, which many `*` would make try for very long. */
  #fits(channel: string): boolean {
    const pieces = this.#pieces;
    const [first = ''] = pieces;
    if (pieces.length === 1) return channel === first;
    const last = pieces.at(-1) ?? '';
    if (channel.length < first.length + last.length || !channel.startsWith(first) || !channel.endsWith(last))
      return false;
    let at = first.length;
    const end = channel.length - last.length;
    for (const piece of pieces.slice(1, -1)) {
      const found = channel.indexOf(piece, at);
      if (found === -1 || found + piece.length > end) return false;
      at = found + piece.length;
    }
    return true;
  }
}
