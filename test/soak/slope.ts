// How fast a heap climbs that is full: what a node keeps for those who come back has filled by then. The line is the median
// of the slopes between all pairs of samples, so that a sample in the midst of a fault, when much is under way, does not
// bend it.

export interface Sample {
  readonly seconds: number;
  /** In use after all garbage was collected. */
  readonly megabytes: number;
  /** How many objects of each type. */
  readonly types: Readonly<Record<string, number>>;
}

/** Of the whole time. */
const filling = 0.4;

/** Megabytes per ten minutes, of the samples since the heap was full; not a number where there are too few of them. */
export function slopePerTenMinutes(samples: readonly Sample[]): number {
  const points = full(samples);
  const slopes = points.flatMap((one, index) =>
    points.slice(index + 1).map((other) => (other.megabytes - one.megabytes) / (other.seconds - one.seconds)),
  );
  return (slopes.toSorted((one, other) => one - other)[Math.floor(slopes.length / 2)] ?? NaN) * 600;
}

/** The types of which most came to be since the heap was full, such as `Object +120`. */
export function grown(samples: readonly Sample[], count: number): string[] {
  const points = full(samples);
  const third = Math.floor(points.length / 3);
  const early = median(points.slice(0, third));
  const late = median(points.slice(-third));
  const more = Object.keys(late).map((type) => ({ type, count: (late[type] ?? 0) - (early[type] ?? 0) }));
  return more
    .filter((each) => each.count > 0)
    .toSorted((one, other) => other.count - one.count)
    .slice(0, count)
    .map((each) => `${each.type} +${each.count}`);
}

function full(samples: readonly Sample[]): readonly Sample[] {
  const first = samples[0]?.seconds ?? 0;
  const last = samples.at(-1)?.seconds ?? 0;
  return samples.filter(({ seconds }) => seconds >= first + (last - first) * filling);
}

function median(samples: readonly Sample[]): Record<string, number> {
  const types = new Set(samples.flatMap((sample) => Object.keys(sample.types)));
  const counts = (type: string): number[] => samples.map((sample) => sample.types[type] ?? 0).sort((a, b) => a - b);
  return Object.fromEntries(Array.from(types, (type) => [type, counts(type)[Math.floor(samples.length / 2)] ?? 0]));
}
