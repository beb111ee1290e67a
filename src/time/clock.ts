// Time and chance, injected everywhere so that tests can turn both by hand.

export interface Clock {
  /** Unix milliseconds, for what people and other machines read. */
  now(): number;
  /** Milliseconds that never go back, for measuring: a wall clock may jump. */
  monotonic(): number;
  sleep(milliseconds: number): Promise<void>;
  /** 0 up to, not including, 1. */
  random(): number;
}

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  sleep: (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds)),
  random: () => Math.random(),
};

const idLetters = '0123456789abcdefghijklmnopqrstuvwxyz';

/** A short name, unique by chance: `length` letters of base 36. */
export function randomId(clock: Clock, length: number): string {
  // Added letter by letter it would be a tree of its pieces, which takes ten times as much and may be kept for long.
  return Array.from({ length }, () => idLetters[Math.floor(clock.random() * 36)]).join('');
}
