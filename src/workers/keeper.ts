// The keeper of the worker processes that serve one port together (WORKERS). Each worker is a node; the keeper is none.
//
// Lifecycle:
// 1. the database is started and migrated, once for all workers;
// 2. the port is tried: workers share it with each other, but not with another program;
// 3. all workers are started; if one of them ends before it listens, the start has failed;
// 4. a worker that ends by itself is started again, after growing pauses; one that gets a signal of its own is drained
//    and replaced;
// 5. on a signal all workers are drained side by side, within one window; a second signal closes all of them;
// 6. whatever worker is asked for metrics, the keeper collects those of all and answers;
// 7. the embedded database, if there is one, is stopped last.

import { announce } from '../app/banner.ts';
import { CloseStack } from '../app/close-stack.ts';
import { openDatabase, type NodeDatabase } from '../app/database.ts';
import { unlessInterrupted } from '../app/interruption.ts';
import type { Logger } from '../app/logger.ts';
import type { Running } from '../app/running.ts';
import { shutdownSignals } from '../app/signals.ts';
import { renderTogether } from '../metrics/together.ts';
import { claimPort } from './port.ts';
import { WorkerProcess } from './process.ts';
import { workerVariable } from './link.ts';
import type { Settings } from '../settings/settings.ts';

/** A signal to the whole group reaches this process and the workers within this time. */
const sameSignalMs = 500;

/** Resolves when all workers listen. Rejects with `StartInterrupted`, once everything is closed, when the signal is aborted. */
export async function startWorkers(settings: Settings, log: Logger, interrupted: AbortSignal): Promise<Running> {
  const closing = new CloseStack(log);
  try {
    const database = await unlessInterrupted(openDatabase(settings, log, closing), interrupted);
    const port = await unlessInterrupted(claimPort(settings.host, settings.port), interrupted);
    const workers = new Workers(environmentOf(settings, database, port), settings, log);
    closing.add('workers', () => workers.force());
    const url = await unlessInterrupted(workers.start(), interrupted);
    announce({ url, settings, psql: database.psql, databaseUrl: database.printedUrl }, log);
    const ended = workers.ended.then(() => closing.close());
    return { signal: (name) => workers.signal(name), ended };
  } catch (error) {
    await closing.close();
    throw error;
  }
}

type Environment = Readonly<Record<string, string | undefined>>;

/** A worker reads the settings as any process does. What the keeper has decided is added to them. */
function environmentOf(settings: Settings, database: NodeDatabase, port: number): Environment {
  return {
    ...process.env,
    PORT: String(port),
    NODE_ID: settings.nodeId,
    DATABASE_URL: database.givenUrl,
  };
}

export class Workers {
  readonly #log: Logger;
  readonly #workers: readonly WorkerProcess[];
  readonly #ended = Promise.withResolvers<void>();
  #endingAt: number | undefined;
  #forced = false;

  constructor(environment: Environment, settings: Settings, log: Logger) {
    this.#log = log;
    this.#workers = Array.from({ length: settings.workers }, (_, index) => {
      const number = index + 1;
      return new WorkerProcess({
        number,
        environment: { ...environment, [workerVariable]: String(number) },
        log,
        drainSeconds: settings.shutdownTimeout,
        signalled: (worker, name) => this.#signalled(worker, name),
        scraped: (worker, id) => void this.#answerScrape(worker, id),
      });
    });
  }

  /** Resolves when all have ended after a signal. */
  get ended(): Promise<void> {
    return this.#ended.promise;
  }

  /** Resolves with the URL when all listen; rejects with `WorkerEndedEarly` when one ends before. */
  async start(): Promise<string> {
    const [url = ''] = await Promise.all(this.#workers.map((worker) => worker.start()));
    return url;
  }

  signal(name: string): void {
    const now = performance.now();
    if (this.#endingAt === undefined) {
      this.#endingAt = now;
      this.#log.info({ signal: name, workers: this.#workers.length }, 'shutting down');
      this.#drain().then(this.#ended.resolve, this.#ended.reject);
    } else if (now - this.#endingAt > sameSignalMs && !this.#forced) {
      this.#log.warn({ signal: name }, 'second signal: closing at once');
      void this.force();
    }
  }

  /** Resolves when all have ended. Idempotent. */
  async force(): Promise<void> {
    this.#endingAt ??= performance.now();
    this.#forced = true;
    await Promise.all(this.#workers.map((worker) => worker.force()));
  }

  /** One scrape answers for all workers, whichever of them gets it. */
  async #answerScrape(worker: WorkerProcess, id: number): Promise<void> {
    const snapshots = await Promise.all(this.#workers.map((each) => each.metrics()));
    worker.answerScrape(id, await renderTogether(snapshots.flat()));
  }

  async #drain(): Promise<void> {
    // Side by side: all of them spread their clients over the same window, and the clients of each over the whole of it.
    await Promise.all(this.#workers.map((worker) => (this.#forced ? worker.force() : worker.drain())));
    this.#log.info('shut down');
  }

  /** A worker got a signal. If the signal went to the whole group, this process gets it too, within a moment. */
  #signalled(worker: WorkerProcess, name: string): void {
    // Processes that this one starts do not inherit what it ignores.
    if (!shutdownSignals().some((signal) => signal === name)) return;
    setTimeout(() => {
      if (this.#endingAt === undefined) worker.recycle();
    }, sameSignalMs);
  }
}
