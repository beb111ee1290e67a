// How busy nodes were lately, step by step: what one node knows of itself, and what several know together.

/** Each is a number for each step: what stood at its end, or how much came in each second of it. */
export const rateNames = [
  'connections',
  'publications',
  'deliveries',
  'commands',
  'errors',
  /** Seconds that messages took through the sync layer, summed; and how many did. */
  'delaySeconds',
  'delays',
] as const;

export type RateName = (typeof rateNames)[number];

export type RateSeries = Readonly<Record<RateName, readonly number[]>>;

export interface Rates {
  /** Number of the first step, counted since 1970. */
  readonly from: number;
  /** All of one length, which may be 0. */
  readonly series: RateSeries;
}

export const rateStepMs = 5_000;
export const rateStepsMax = 180;

/** Two nodes together. A step that only one of them has is that one's. */
export function together(one: Rates, other: Rates): Rates {
  if (lengthOf(one) === 0) return other;
  if (lengthOf(other) === 0) return one;
  const from = Math.min(one.from, other.from);
  const until = Math.max(one.from + lengthOf(one), other.from + lengthOf(other));
  // A node whose clock is far off would stretch them without end.
  const first = Math.max(from, until - rateStepsMax);
  const steps = Array.from({ length: until - first }, (_, index) => first + index);
  const sum = (name: RateName): readonly number[] =>
    steps.map((step) => (one.series[name][step - one.from] ?? 0) + (other.series[name][step - other.from] ?? 0));
  return { from: first, series: seriesOf(sum) };
}

export function seriesOf(make: (name: RateName) => readonly number[]): RateSeries {
  return Object.fromEntries(rateNames.map((name) => [name, make(name)])) as Record<RateName, readonly number[]>;
}

export function lengthOf({ series }: Rates): number {
  return series.connections.length;
}
