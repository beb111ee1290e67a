// What others notice of a storm: somebody publishes to a channel of their own every 20 ms, and somebody asks every
// 100 ms whether the node is ready. The witness shares two processors with all others, so it measures how late it is
// itself: what it says of the node is worth no more than that.
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { percentile } from './table.ts';
import type { ServerProcess } from './server-process.ts';

export const apiKey = 'the-key-of-a-benchmark-0123456789';
export const asBackend = { 'content-type': 'application/json', authorization: `Bearer ${apiKey}` };

const publishEveryMs = 20;
const lookEveryMs = 100;

export interface Witnessed {
  readonly publishP99Ms: number;
  readonly publishMaxMs: number;
  readonly failedPublishes: number;
  /** Looks that were not answered with 200. */
  readonly unready: number;
  /** How late the witness's own timers were. */
  readonly ownLoopP99Ms: number;
}

export class StormWitness {
  readonly #origin: string;
  readonly #latencies: number[] = [];
  #failed = 0;
  #unready = 0;
  #running: Promise<unknown> | undefined;
  #stopped = false;
  readonly #own = monitorEventLoopDelay({ resolution: 1 });

  constructor({ port }: ServerProcess) {
    this.#origin = `http://127.0.0.1:${port}`;
  }

  async start(channel: string): Promise<void> {
    for (let count = 0; count < 20; count++) await this.#publish(channel);
    this.#latencies.length = 0;
    this.#own.enable();
    this.#running = Promise.all([
      this.#every(publishEveryMs, () => this.#publish(channel)),
      this.#every(lookEveryMs, () => this.#checkReady()),
    ]);
  }

  /** Of publishes that were answered since the start, or since the last look. */
  look(): Witnessed {
    const latencies = this.#latencies.splice(0);
    const seen = {
      publishP99Ms: percentile(latencies, 0.99),
      publishMaxMs: Math.max(0, ...latencies),
      failedPublishes: this.#failed,
      unready: this.#unready,
      ownLoopP99Ms: this.#own.percentile(99) / 1e6,
    };
    this.#own.reset();
    return seen;
  }

  async stop(): Promise<Witnessed> {
    this.#stopped = true;
    await this.#running;
    this.#own.disable();
    return this.look();
  }

  /** On the beat, however long one takes: to wait for the last would leave out what is slow. */
  async #every(ms: number, act: () => Promise<void>): Promise<void> {
    const under: Promise<void>[] = [];
    const begun = performance.now();
    for (let beat = 1; !this.#stopped; beat++) {
      under.push(act());
      await Bun.sleep(Math.max(0, begun + beat * ms - performance.now()));
    }
    await Promise.all(under);
  }

  async #publish(channel: string): Promise<void> {
    const begun = performance.now();
    const response = await fetch(`${this.#origin}/realtime/publish`, {
      method: 'POST',
      headers: asBackend,
      body: JSON.stringify({ channel, data: 1 }),
    });
    await response.arrayBuffer();
    if (!response.ok) this.#failed++;
    this.#latencies.push(performance.now() - begun);
  }

  async #checkReady(): Promise<void> {
    const response = await fetch(`${this.#origin}/health/ready`);
    await response.arrayBuffer();
    if (response.status !== 200) this.#unready++;
  }
}
