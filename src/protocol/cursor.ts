// The cursor: one compact string that holds the positions of all channels of an event stream.
//
// An EventSource keeps a single `Last-Event-ID`, so each event's id must place the reader in every channel at once.
// Names and epochs go in as short hashes, since the stream's URL names its channels anyway:
//
//   cursor  := "1" salt group*           version 1; salt is one base64url digit
//   group   := "." epoch entry*          epochs are few: usually one for all channels
//   epoch   := 6 digits                  36 bits of the epoch's hash
//   entry   := name length offset        name: 5 digits, 30 bits of hash(salt, channel); length: 1 digit; offset: digits
//
// Two channels of one stream whose names hash alike would share an entry, hence the salt: the writer picks the first
// one that keeps its channels apart. A reader that finds no entry for a channel has never read it.

import type { Position } from './position.ts';

const digits = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
const version = '1';
const epochDigits = 6;
const nameDigits = 5;
const saltCount = 64;
/** Longer ones are noise: 50 channels of one epoch need less than 800. */
export const cursorLengthMax = 4_096;

/** What a cursor says of a channel. */
export type CursorEntry =
  | { readonly kind: 'absent' }
  | { readonly kind: 'epoch_changed' }
  | { readonly kind: 'offset'; readonly offset: number };

export interface DecodedCursor {
  /** `epoch` is the channel's present one. */
  entry(channel: string, epoch: string): CursorEntry;
}

/** What a cursor writes of one channel. */
interface Entry {
  readonly name: string;
  /** Undefined while it has no position. */
  epoch: string | undefined;
  /** As it stands before the entries of the epoch. */
  group: string;
  text: string;
}

/**
 * Writes the cursors of one stream, or of all streams with the same channels: `set` as each position moves, `text`
 * for the id of the event that moved it. Ephemeral channels have no position and are never set.
 */
export class CursorWriter {
  readonly #start: string;
  readonly #entries: ReadonlyMap<string, Entry>;
  /** Those with a position, in the order of the text: entries of one epoch stand together. */
  readonly #written: Entry[] = [];
  /** The one that moved last, which is mostly the next one that moves... */
  #moved: Entry | undefined;
  /** ...and the text before and after it, while it moves alone. */
  #around: readonly [string, string] | undefined;

  constructor(channels: readonly string[]) {
    for (let salt = 0; salt < saltCount; salt++) {
      const names = channels.map((channel) => whole(hashDigits(`${salt} ${channel}`, nameDigits)));
      if (new Set(names).size < new Set(channels).size) continue;
      this.#entries = new Map(
        names.map((name, index) => [channels[index] ?? '', { name, epoch: undefined, group: '', text: '' }]),
      );
      this.#start = `${version}${digits[salt]}`;
      return;
    }
    throw new Error('no salt keeps these channel names apart');
  }

  set(channel: string, { epoch, offset }: Position): void {
    const entry = this.#entries.get(channel);
    if (entry === undefined) return;
    if (entry !== this.#moved || entry.epoch !== epoch) this.#around = undefined;
    if (entry.epoch !== epoch) this.#move(entry, epoch);
    this.#moved = entry;
    entry.text = whole(entry.name + offsetDigits(offset));
  }

  text(): string {
    const entry = this.#moved;
    if (entry === undefined) return this.#start;
    const [before, after] = (this.#around ??= this.#textAround(entry));
    return before + entry.text + after;
  }

  /** One that stands where this one does, in these channels alone. */
  narrowed(channels: readonly string[]): CursorWriter {
    const narrowed = new CursorWriter(channels);
    const here = decodeCursor(this.text());
    for (const channel of channels) {
      const epoch = this.#entries.get(channel)?.epoch;
      const entry = epoch === undefined ? undefined : here?.entry(channel, epoch);
      if (epoch !== undefined && entry?.kind === 'offset') narrowed.set(channel, { epoch, offset: entry.offset });
    }
    return narrowed;
  }

  #textAround(moved: Entry): readonly [string, string] {
    let before: string | undefined;
    let text = this.#start;
    let epoch: string | undefined;
    for (const entry of this.#written) {
      if (entry.epoch !== epoch) text += entry.group;
      epoch = entry.epoch;
      if (entry !== moved) {
        text += entry.text;
        continue;
      }
      before = whole(text);
      text = '';
    }
    return [before ?? '', whole(text)];
  }

  #move(entry: Entry, epoch: string): void {
    if (entry.epoch !== undefined) this.#written.splice(this.#written.indexOf(entry), 1);
    const last = this.#written.findLastIndex((other) => other.epoch === epoch);
    this.#written.splice(last === -1 ? this.#written.length : last + 1, 0, entry);
    entry.epoch = epoch;
    entry.group = whole(`.${epochHash(epoch)}`);
  }
}

/** Reading it makes it one text. Until then it is a tree of its pieces, which takes several times as much. */
function whole(text: string): string {
  if (text.charCodeAt(0) === 0) throw new Error('a cursor holds no NUL');
  return text;
}

/** The last epoch's hash: nearly all cursors of a server name the same one. */
let lastEpoch: { readonly epoch: string | undefined; readonly hash: string } = { epoch: undefined, hash: '' };

function epochHash(epoch: string): string {
  if (lastEpoch.epoch !== epoch) lastEpoch = { epoch, hash: hashDigits(epoch, epochDigits) };
  return lastEpoch.hash;
}

/** Undefined when the text is no cursor of this server; never throws. */
export function decodeCursor(text: string): DecodedCursor | undefined {
  if (text.length > cursorLengthMax || text[0] !== version) return undefined;
  const salt = digits.indexOf(text[1] ?? '?');
  if (salt === -1) return undefined;
  const entries = new Map<string, { epoch: string; offset: number }>();
  const rest = text.slice(2);
  if (rest !== '' && rest[0] !== '.') return undefined;
  for (const group of rest === '' ? [] : rest.slice(1).split('.')) {
    if (!readGroup(group, entries)) return undefined;
  }
  return {
    entry(channel, epoch) {
      const found = entries.get(hashDigits(`${salt} ${channel}`, nameDigits));
      if (found === undefined) return { kind: 'absent' };
      if (found.epoch !== epochHash(epoch)) return { kind: 'epoch_changed' };
      return { kind: 'offset', offset: found.offset };
    },
  };
}

function readGroup(group: string, entries: Map<string, { epoch: string; offset: number }>): boolean {
  const epoch = group.slice(0, epochDigits);
  if (epoch.length !== epochDigits) return false;
  let at = epochDigits;
  while (at < group.length) {
    const name = group.slice(at, at + nameDigits);
    const length = digits.indexOf(group[at + nameDigits] ?? '?');
    const start = at + nameDigits + 1;
    // 9 digits of 6 bits are the most that a safe integer needs.
    if (name.length !== nameDigits || length < 1 || length > 9 || start + length > group.length) return false;
    let offset = 0;
    for (const mark of group.slice(start, start + length)) {
      const digit = digits.indexOf(mark);
      if (digit === -1) return false;
      offset = offset * 64 + digit;
    }
    if (!Number.isSafeInteger(offset)) return false;
    entries.set(name, { epoch, offset });
    at = start + length;
  }
  return true;
}

function offsetDigits(offset: number): string {
  let text = '';
  let rest = offset;
  do {
    text = digits[rest % 64] + text;
    rest = Math.floor(rest / 64);
  } while (rest > 0);
  return digits[text.length] + text;
}

/** FNV-1a run twice with different seeds: spread well, the same in every runtime, and no secret is at stake. */
function hashDigits(text: string, count: number): string {
  let low = hash32(text, 0x811c9dc5);
  let high = hash32(text, 0x01234567);
  let result = '';
  for (let index = 0; index < count; index++) {
    result += digits[low & 63];
    low = ((low >>> 6) | (high << 26)) >>> 0;
    high >>>= 6;
  }
  return result;
}

function hash32(text: string, seed: number): number {
  let hash = seed;
  for (let index = 0; index < text.length; index++) {
    hash = Math.imul(hash ^ text.charCodeAt(index), 0x01000193);
  }
  // FNV's low bits alone are weak on short texts; a final avalanche spreads each character over all of them.
  hash = Math.imul(hash ^ (hash >>> 15), 0x2c1b3c6d);
  hash = Math.imul(hash ^ (hash >>> 12), 0x297a2d39);
  return (hash ^ (hash >>> 15)) >>> 0;
}
