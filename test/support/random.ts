// Random numbers that a test can repeat: SEED=… runs it with the same ones again.

/** Where a page runs this there is no process. */
const { process: runtime } = globalThis as { process?: typeof process };

/** Of this run; tests name it in their titles. */
export const seed = Number(runtime?.env['SEED'] ?? crypto.getRandomValues(new Uint32Array(1))[0]);

export type Random = () => number;

/** mulberry32: from 0 up to 1, the same for the same start. */
export function randomFrom(start: number): Random {
  let state = start >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

export function pick<T>(values: readonly T[], random: Random): T {
  const value = values[Math.floor(random() * values.length)];
  if (value === undefined) throw new Error('there is nothing to pick from');
  return value;
}
