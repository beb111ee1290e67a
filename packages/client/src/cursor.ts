// Positions of many channels as the one string that an event stream resumes by. Only written here, never read: the
// client keeps a position per channel, so that it can change its transport or its channels and lose nothing. The format
// is the server's; a test holds this writer against the server's reader.

import type { Position } from './protocol.ts';

const digits = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';

/** Undefined when nothing is to be resumed. */
export function cursorOf(positions: ReadonlyMap<string, Position>): string | undefined {
  if (positions.size === 0) return undefined;
  let salt = 0;
  let names: string[];
  do names = Array.from(positions.keys(), (channel) => hash(`${salt} ${channel}`, 5));
  while (new Set(names).size < names.length && ++salt < 64);
  const groups = new Map<string, string>();
  for (const { epoch, offset } of positions.values()) {
    let text = '';
    let rest = offset;
    do text = digits[rest % 64] + text;
    while ((rest = Math.floor(rest / 64)) > 0);
    groups.set(epoch, (groups.get(epoch) ?? `.${hash(epoch, 6)}`) + names.shift() + digits[text.length] + text);
  }
  return `1${digits[salt]}${[...groups.values()].join('')}`;
}

function hash(text: string, count: number): string {
  let low = hash32(text, 0x811c9dc5);
  let high = hash32(text, 0x01234567);
  let result = '';
  while (count-- > 0) {
    result += digits[low & 63];
    low = ((low >>> 6) | (high << 26)) >>> 0;
    high >>>= 6;
  }
  return result;
}

function hash32(text: string, seed: number): number {
  let mixed = seed;
  for (let index = 0; index < text.length; index++) mixed = Math.imul(mixed ^ text.charCodeAt(index), 0x01000193);
  mixed = Math.imul(mixed ^ (mixed >>> 15), 0x2c1b3c6d);
  mixed = Math.imul(mixed ^ (mixed >>> 12), 0x297a2d39);
  return (mixed ^ (mixed >>> 15)) >>> 0;
}
