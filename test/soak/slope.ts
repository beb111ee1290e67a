// How fast a heap climbs, seen through the saw that the garbage collector makes of it: the lowest sample of each half
// minute is about what is in use, and a straight line through those is the climb.

export interface Sample {
  readonly seconds: number;
  readonly megabytes: number;
}

const windowSeconds = 30;
/** Of the whole time: caches and histories fill first. */
const warmUp = 0.3;

/** Megabytes per ten minutes; not a number where there are too few samples. */
export function slopePerTenMinutes(samples: readonly Sample[]): number {
  const first = samples[0]?.seconds ?? 0;
  const last = samples.at(-1)?.seconds ?? 0;
  const floors = new Map<number, number>();
  for (const { seconds, megabytes } of samples) {
    if (seconds < first + (last - first) * warmUp) continue;
    const window = Math.floor(seconds / windowSeconds);
    floors.set(window, Math.min(megabytes, floors.get(window) ?? megabytes));
  }
  const points = [...floors].map(([window, megabytes]) => ({ x: window * windowSeconds, y: megabytes }));
  const mean = (of: (point: (typeof points)[number]) => number): number =>
    points.reduce((sum, point) => sum + of(point), 0) / points.length;
  const middle = { x: mean(({ x }) => x), y: mean(({ y }) => y) };
  const covariance = mean(({ x, y }) => (x - middle.x) * (y - middle.y));
  return (covariance / mean(({ x }) => (x - middle.x) ** 2)) * 600;
}
