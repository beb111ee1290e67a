// How others fare while a server is attacked: starts the witness, and tells what it saw in the quiet and during the
// attack of one run, so that a slow machine is slow in both.

import { expect } from 'bun:test';
import { join } from 'node:path';
import { spawnScript, type RunningProcess, type RunningServer } from '../process.ts';
import { until } from '../tcp-client.ts';
import type { Report, Sample } from './witness.ts';

export interface Latency {
  readonly count: number;
  readonly p50: number;
  readonly p99: number;
  readonly max: number;
}

export class Bystander {
  readonly #process: RunningProcess;
  readonly #samples: Sample[] = [];
  readonly #faults: string[] = [];
  #read = 0;

  private constructor(process: RunningProcess) {
    this.#process = process;
  }

  /** Resolves when it is served. */
  static async start(server: RunningServer, token = ''): Promise<Bystander> {
    const bystander = new Bystander(spawnScript(join(import.meta.dir, 'witness.ts'), {}, [server.url, token]));
    await until(
      () => bystander.#look().length > 10,
      () => `the witness is served; ${bystander.#process.stderr()}`,
      20_000,
    );
    return bystander;
  }

  /** Latencies of both transports together, of what was published while the work went on. */
  async during(work: () => Promise<unknown>): Promise<Latency> {
    const from = Date.now();
    await work();
    const to = Date.now();
    const lastAt = (): number => this.#look().at(-1)?.[0] ?? 0;
    await until(
      () => lastAt() > to,
      () => `the witness has everything; ${this.#faults.slice(0, 5).join('\n')}`,
      20_000,
    );
    const during = this.#samples.filter(([sentAt]) => sentAt >= from && sentAt <= to);
    return latencyOf(during.flatMap(([, websocketMs, sseMs]) => [websocketMs, sseMs]));
  }

  quiet(milliseconds: number): Promise<Latency> {
    return this.during(() => Bun.sleep(milliseconds));
  }

  /** Nothing was lost, repeated or closed on it. */
  expectServed(): void {
    this.#look();
    expect([this.#faults.slice(0, 5), this.#process.stderr()]).toEqual([[], '']);
  }

  async stop(): Promise<void> {
    await this.#process.kill9();
  }

  #look(): readonly Sample[] {
    const text = this.#process.stdout();
    const end = text.lastIndexOf('\n') + 1;
    const lines = text.slice(this.#read, end).split('\n').filter(Boolean);
    this.#read = end;
    for (const line of lines) {
      const { samples = [], fault } = JSON.parse(line) as Report;
      this.#samples.push(...samples);
      if (fault !== undefined) this.#faults.push(fault);
    }
    return this.#samples;
  }
}

function latencyOf(unsorted: readonly number[]): Latency {
  const sorted = unsorted.toSorted((a, b) => a - b);
  const at = (share: number): number => round(sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))]);
  return { count: sorted.length, p50: at(0.5), p99: at(0.99), max: at(1) };
}

function round(milliseconds = Number.NaN): number {
  return Math.round(milliseconds * 100) / 100;
}
