// Random texts and bytes that look like what the server reads, from a seed.

import { pick, type Random } from '../random.ts';

export function whole(random: Random, below: number): number {
  return Math.floor(random() * below);
}

export function chance(random: Random, share: number): boolean {
  return random() < share;
}

export function randomBytes(random: Random, length: number): Buffer {
  const bytes = Buffer.alloc(length);
  for (let index = 0; index < length; index++) bytes[index] = whole(random, 256);
  return bytes;
}

const odd = [
  '\u0000',
  '\ud800',
  '\u202e',
  '\ufeff',
  '\uffff',
  '👩‍👩‍👧‍👦',
  'é',
  '"',
  '\\',
  '{',
  '[',
  '\n',
  '\r',
  '%',
  ':',
  ',',
];

export function randomText(random: Random, length: number): string {
  let text = '';
  while (text.length < length) {
    text += chance(random, 0.2) ? pick(odd, random) : String.fromCharCode(32 + whole(random, 95));
  }
  return text;
}

/** The text with a few places changed, taken away, doubled or cut off. */
export function mutated(text: string, random: Random): string {
  let changed = text;
  for (let times = 1 + whole(random, 4); times > 0; times--) {
    const at = whole(random, changed.length + 1);
    const to = Math.min(changed.length, at + 1 + whole(random, 8));
    const [before, middle, after] = [changed.slice(0, at), changed.slice(at, to), changed.slice(to)];
    switch (whole(random, 5)) {
      case 0:
        changed = before + after;
        break;
      case 1:
        changed = before + middle + middle + after;
        break;
      case 2:
        changed = before + pick(odd, random) + after;
        break;
      case 3:
        changed = before + randomText(random, 1 + whole(random, 6)) + middle + after;
        break;
      default:
        changed = chance(random, 0.2) ? before : before + middle.toUpperCase() + after;
    }
  }
  return changed;
}

const values: readonly ((random: Random) => unknown)[] = [
  () => null,
  () => true,
  () => '',
  () => -1,
  () => 1e308,
  () => Number.MAX_SAFE_INTEGER + 2,
  () => [],
  () => ({}),
  () => ({ __proto__: null, constructor: 1, toString: 2 }),
  (random) => whole(random, 1_000),
  (random) => random(),
  (random) => randomText(random, whole(random, 40)),
  (random) => 'x'.repeat(whole(random, 200)),
  (random) => Array.from({ length: whole(random, 20) }, () => whole(random, 9)),
  (random) => ({ [randomText(random, 5)]: randomText(random, 5) }),
  (random) => ({ epoch: randomText(random, 4), offset: whole(random, 100) - 10 }),
];

export function randomValue(random: Random): unknown {
  return pick(values, random)(random);
}

/** Few that are valid, so that attackers meet each other, and many that are not. */
export function randomChannel(random: Random): string {
  const number = whole(random, 20);
  if (chance(random, 0.4)) return `ephemeral:fuzz-${number}`;
  if (chance(random, 0.4)) return `fuzz:${number}`;
  if (chance(random, 0.3))
    return pick(['$system', '$nodes', '$', '__proto__', 'user:7', 'posts', 'x'.repeat(257)], random);
  return randomText(random, whole(random, 30));
}
