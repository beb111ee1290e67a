// What a soak says of a heap: that it climbs, if what is held does, and not that much was under way.

import { expect, test } from 'bun:test';
import { grown, slopePerTenMinutes, type Sample } from '../soak/slope.ts';
import { randomFrom } from '../support/random.ts';

const minutes = 20;
const everySeconds = 10;

/** Of each sample the megabytes that are held, by its minute; and so many at most that are not, in all but some. */
function samplesOf(held: (minute: number) => number, underWay: number, seed = 1): Sample[] {
  const random = randomFrom(seed);
  return Array.from({ length: (minutes * 60) / everySeconds }, (_, index) => {
    const seconds = index * everySeconds;
    const more = random() < 0.3 ? 0 : random() * underWay;
    return { seconds: 1_800_000_000 + seconds, megabytes: held(seconds / 60) + more, types: { Object: index } };
  });
}

test('what fills in the first minutes, and what is under way, is no slope', () => {
  for (let seed = 1; seed <= 20; seed++) {
    const slope = slopePerTenMinutes(samplesOf((minute) => 10 + Math.min(minute, 7), 3, seed));
    expect(Math.abs(slope)).toBeLessThan(0.3);
  }
});

test('a megabyte of ten minutes is found beneath all of that', () => {
  for (let seed = 1; seed <= 20; seed++) {
    const slope = slopePerTenMinutes(samplesOf((minute) => 20 + minute / 10, 3, seed));
    expect(slope).toBeGreaterThan(0.7);
    expect(slope).toBeLessThan(1.3);
  }
});

test('of too few samples nothing is said', () => {
  expect(slopePerTenMinutes([])).toBeNaN();
  expect(slopePerTenMinutes([{ seconds: 1, megabytes: 1, types: {} }])).toBeNaN();
});

test('the types that grew are named, those that grew most first', () => {
  const samples = samplesOf(() => 20, 0).map((sample, index) => ({
    ...sample,
    types: { Object: index, string: 2 * index, Array: 5 },
  }));
  const names = grown(samples, 2).map((each) => each.split(' ')[0]);
  expect(names).toEqual(['string', 'Object']);
});
