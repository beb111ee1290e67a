// What a benchmark is told, and what it says of the limits that it is held against.

import type { Contender } from './contenders.ts';

export interface BenchOptions {
  // Fewer and shorter rounds: to see that it runs, not to quote.
  readonly quick: boolean;
  // Without our own server: what the machine and the runtime give.
  readonly baselinesOnly: boolean;
  takes(contender: Contender): boolean;
}

// One of the two limits is there.
export interface Bar {
  readonly name: string;
  readonly measured: number;
  readonly atMost?: number;
  readonly atLeast?: number;
}
