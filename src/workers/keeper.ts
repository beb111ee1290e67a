// The keeper of the worker processes that serve one port together (WORKERS), each a node of its own. It serves nothing
// itself.
//
// Lifecycle:
// 1. the database is brought up and migrated, once for all;
// 2. the port is tried: workers share it among themselves, but not with a stranger;
// 3. all workers are started; if one of them ends before it ever listened, the start has failed;
// 4. a worker that ends unasked is started again, ever later if it keeps dying; one that was signalled alone is
//    drained and replaced;
// 5. on a signal nobody new is let in, and the workers are drained one after another, so that the clients of all do not
//    come to the other nodes at once; a second signal closes all of them;
// 6. the embedded database, if there is one, is stopped last.

import { announce } from '../app/banner.ts';
import { CloseStack } from '../app/close-stack.ts';
import { openDatabase, type NodeDatabase } from '../app/database.ts';
import type { Logger } from '../app/logger.ts';
import type { Running } from '../app/running.ts';
import { claimPort } from './port.ts';
import { WorkerProcess } from './process.ts';
import { workerVariable } from './link.ts';
import type { Settings } from '../settings/settings.ts';

/** Copies of one signal, to this process and to the workers, arrive within this time. */
const sameSignalMs = 500;

/** Resolves when all workers listen. */
export async function startWorkers(settings: Settings, log: Logger): Promise<Running> {
  const closing = new CloseStack(log);
  try {
    const database = await openDatabase(settings, log, closing);
    const port = await claimPort(settings.host, settings.port);
    const workers = new Workers(environmentOf(settings, database, port), settings, log);
    closing.add('workers', () => workers.force());
    const url = await workers.start();
    announce({ url, settings, psql: database.psql, databaseUrl: database.url }, log);
    const ended = workers.ended.then(() => closing.close());
    return { signal: (name) => workers.signal(name), ended };
  } catch (error) {
    await closing.close();
    throw error;
  }
}

type Environment = Readonly<Record<string, string | undefined>>;

/** A worker reads the settings as any process does; what was decided here is written into them. */
function environmentOf(settings: Settings, database: NodeDatabase, port: number): Environment {
  return {
    ...process.env,
    PORT: String(port),
    NODE_ID: settings.nodeId,
    DATABASE_URL: database.url,
    // They are drained one after another, and all of them in the time that was given.
    SHUTDOWN_TIMEOUT: (settings.shutdownTimeout / settings.workers).toFixed(3),
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
        drainSeconds: settings.shutdownTimeout / settings.workers,
        signalled: (worker) => this.#signalled(worker),
      });
    });
  }

  /** Resolves when all were asked to end and have ended. */
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

  async #drain(): Promise<void> {
    for (const worker of this.#workers) worker.refuseNew();
    for (const worker of this.#workers) await (this.#forced ? worker.force() : worker.drain());
    this.#log.info('shut down');
  }

  /** Someone signalled one worker. If it was everyone, this process hears of it too, a moment sooner or later. */
  #signalled(worker: WorkerProcess): void {
    setTimeout(() => {
      if (this.#endingAt === undefined) worker.recycle();
    }, sameSignalMs);
  }
}
