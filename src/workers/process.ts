// One worker: its process, and the next process when that ends by itself. Knows nothing of the other workers.

import type { Logger } from '../app/logger.ts';
import type { MetricsSnapshot } from '../metrics/together.ts';
import { isExecutable, shippedPath } from '../shipped/files.ts';
import { backoffCeilingMs } from '../time/backoff.ts';
import { Counts } from './counts.ts';
import type { Order, Report } from './link.ts';

export interface WorkerParts {
  readonly number: number;
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly log: Logger;
  /** How long its clients may take to leave. */
  readonly drainSeconds: number;
  /** The process got a signal to shut down, alone or with the whole group. */
  readonly signalled: (worker: WorkerProcess, name: string) => void;
  /** Somebody asks it for metrics: answer by `answerScrape`. */
  readonly scraped: (worker: WorkerProcess, id: number) => void;
}

/** A process that ended sooner than this counts as failing at its start. */
const soundMs = 60_000;
const restartPause = { firstMs: 100, maxMs: 30_000 };
/** After this many failures in a row the log says so. */
const loopLength = 5;
const startLimitMs = 120_000;
/** In addition to the time for clients: each part that the worker closes may take ten seconds. */
const closeLimitMs = 45_000;

/** A worker ended before it listened. The message is for the person at the terminal. */
export class WorkerEndedEarly extends Error {
  /** The worker's own exit code. */
  readonly exitCode: number;

  constructor(worker: number, exitCode: number) {
    super(`The server could not start: worker ${worker} ended before it listened (see above).`);
    this.name = 'WorkerEndedEarly';
    this.exitCode = exitCode;
  }
}

/** The command line of this very server. */
function serverCommand(): string[] {
  return [process.execPath, isExecutable ? 'start' : shippedPath('src/main.ts')];
}

type Child = Bun.Subprocess<'ignore', 'inherit', 'inherit'>;

export class WorkerProcess {
  readonly #parts: WorkerParts;
  #child: Child | undefined;
  #url: string | undefined;
  /** How many processes in a row ended soon after their start. */
  #failures = 0;
  #ending = false;
  #recycling = false;
  #restart: Timer | undefined;
  readonly #counts = new Counts();
  /** Resolves when the present process has ended and its end was handled. */
  #gone: Promise<void> = Promise.resolve();

  constructor(parts: WorkerParts) {
    this.#parts = parts;
  }

  /** The first start. Resolves with the URL when it listens; rejects with `WorkerEndedEarly` when it ends before. */
  start(): Promise<string> {
    const first = Promise.withResolvers<string>();
    this.#spawn(first);
    return first.promise;
  }

  /** Shuts the worker down; resolves when it has ended. If it dies meanwhile, it is not replaced. */
  drain(): Promise<void> {
    return this.#end({ order: 'drain', alone: false }, this.#parts.drainSeconds * 1_000 + closeLimitMs);
  }

  /** Resolves when it has ended, without waiting for clients. */
  force(): Promise<void> {
    return this.#end({ order: 'force' }, closeLimitMs);
  }

  /** What this worker and those before it have counted; without an answer in time, what they had when last asked. */
  metrics(): Promise<readonly MetricsSnapshot[]> {
    if (this.#url !== undefined) return this.#counts.ask((id) => this.#order({ order: 'count', id }));
    return Promise.resolve(this.#counts.known);
  }

  answerScrape(id: number, body: string): void {
    this.#order({ order: 'answer', id, body });
  }

  /** Shuts this worker down alone, and starts a new process in its place. */
  recycle(): void {
    if (this.#ending || this.#recycling || this.#child === undefined) return;
    this.#parts.log.info({ worker: this.#parts.number }, 'a worker was signalled: draining and replacing it');
    this.#recycling = true;
    this.#order({ order: 'drain', alone: true });
    this.#killAfter(this.#parts.drainSeconds * 1_000 + closeLimitMs);
  }

  async #end(order: Order, limitMs: number): Promise<void> {
    this.#ending = true;
    clearTimeout(this.#restart);
    this.#order(order);
    this.#killAfter(limitMs);
    await this.#gone;
  }

  #order(order: Order): void {
    const child = this.#child;
    if (child === undefined) return;
    try {
      child.send(order);
    } catch (error) {
      // The process is ending by itself, which is handled elsewhere.
      this.#parts.log.debug({ err: error, worker: this.#parts.number }, 'an order could not be sent to a worker');
    }
  }

  #killAfter(limitMs: number): void {
    const child = this.#child;
    if (child === undefined) return;
    const timer = setTimeout(() => {
      this.#parts.log.error({ worker: this.#parts.number, pid: child.pid }, 'a worker did not end in time: killing it');
      child.kill('SIGKILL');
    }, limitMs);
    void child.exited.then(() => clearTimeout(timer));
  }

  #spawn(first?: PromiseWithResolvers<string>): void {
    const { environment } = this.#parts;
    const startedAt = performance.now();
    this.#url = undefined;
    const child: Child = Bun.spawn(serverCommand(), {
      env: { ...environment },
      stdio: ['ignore', 'inherit', 'inherit'],
      serialization: 'json',
      ipc: (report: Report) => this.#hear(child, report, first),
    });
    this.#child = child;
    const late = setTimeout(() => {
      if (this.#url === undefined) child.kill('SIGKILL');
    }, startLimitMs);
    this.#gone = child.exited.then(async () => {
      clearTimeout(late);
      this.#child = undefined;
      const listened = this.#url !== undefined;
      this.#url = undefined;
      await this.#counts.ended();
      if (first !== undefined && !listened) {
        this.#ending = true;
        first.reject(new WorkerEndedEarly(this.#parts.number, child.exitCode ?? 1));
      }
      if (!this.#ending) this.#startAgain(child, performance.now() - startedAt);
    });
  }

  #hear(child: Child, report: Report, first?: PromiseWithResolvers<string>): void {
    if (report.report === 'signal') {
      this.#parts.signalled(this, report.name);
      return;
    }
    if (report.report === 'scrape') {
      this.#parts.scraped(this, report.id);
      return;
    }
    if (report.report === 'counted') {
      // Counts of a process that has ended are counted already.
      if (child === this.#child) this.#counts.counted(report.id, report.metrics);
      if (report.id === undefined) this.#order({ order: 'end' });
      return;
    }
    this.#url = report.url;
    if (first !== undefined) first.resolve(report.url);
    else this.#parts.log.info({ worker: this.#parts.number, pid: child.pid }, 'a worker is back');
  }

  #startAgain({ pid, exitCode, signalCode }: Child, livedMs: number): void {
    const { log, number: worker } = this.#parts;
    const asked = this.#recycling;
    this.#recycling = false;
    if (asked) {
      this.#spawn();
      return;
    }
    this.#failures = livedMs >= soundMs ? 1 : this.#failures + 1;
    const delayMs = backoffCeilingMs(this.#failures - 1, restartPause);
    const facts = { worker, pid, code: exitCode, signal: signalCode, livedMs: Math.round(livedMs), delayMs };
    const again = this.#failures >= loopLength ? 'again and again' : 'by itself';
    log.error({ ...facts, times: this.#failures }, `a worker ended ${again}: starting it again`);
    this.#restart = setTimeout(() => this.#spawn(), delayMs);
  }
}
