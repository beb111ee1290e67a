// The messages between a worker and its keeper, and the worker's node, which follows the keeper's orders.
//
// A signal may go to one worker alone, or to every process of the group, as from a terminal or a service manager. A
// worker cannot tell which, so it only reports the signal; the keeper knows, and orders what to do. When the connection
// is lost the keeper is dead, and the worker ends at once: the next start needs its name and its port.

import { startNode } from '../app/compose.ts';
import type { Logger } from '../app/logger.ts';
import type { Running } from '../app/running.ts';
import { metricsContentType, type RenderedMetrics } from '../metrics/metrics.ts';
import type { MetricsSnapshot } from '../metrics/together.ts';
import { RealtimeError } from '../protocol/realtime-error.ts';
import { isDoneWithin, within } from '../time/within.ts';
import type { Settings } from '../settings/settings.ts';

/** From the keeper to a worker. */
export type Order =
  /** Shut down. `alone`: the other workers go on, so stop listening first and leave the port to them. */
  | { readonly order: 'drain'; readonly alone: boolean }
  /** Shut down, and wait for no client. */
  | { readonly order: 'force' }
  /** Report what was counted. */
  | { readonly order: 'count'; readonly id: number }
  /** The last counts of this worker arrived. */
  | { readonly order: 'end' }
  /** The answer of all workers to the scrape that this one got. */
  | { readonly order: 'answer'; readonly id: number; readonly body: string };

/** From a worker to the keeper. */
export type Report =
  | { readonly report: 'listening'; readonly url: string }
  | { readonly report: 'signal'; readonly name: string }
  /** `id`: of the order; undefined for the last one of a worker that ends. */
  | { readonly report: 'counted'; readonly id: number | undefined; readonly metrics: MetricsSnapshot }
  /** Somebody asks for the metrics. */
  | { readonly report: 'scrape'; readonly id: number };

/** The worker's number, from 1. Set only in the environment of workers. */
export const workerVariable = 'SOBRANIE_WORKER';

/** Undefined in a process that is no worker. */
export function workerNumber(): number | undefined {
  const text = process.env[workerVariable];
  return text === undefined || process.send === undefined ? undefined : Number(text);
}

/** A forced close has deadlines of its own. This one is for a process in which they no longer work. */
const abandonedMs = 30_000;
/** The keeper waits for a worker that hangs, but not as long. */
const answerMs = 5_000;
const notedMs = 1_000;

/** Resolves when this process listens and has reported it. Rejects with `StartInterrupted` when it is to end before. */
export async function startWorker(settings: Settings, log: Logger): Promise<Running> {
  const orders: Order[] = [];
  const interruption = new AbortController();
  let obey = (order: Order): void => {
    orders.push(order);
    if (order.order === 'drain' || order.order === 'force') interruption.abort();
  };
  let starting = true;
  process.on('message', (message: Order) => obey(message));
  process.on('disconnect', () => {
    if (starting) process.exit(1);
    log.error('the main process is gone: closing at once');
    setTimeout(() => process.exit(1), abandonedMs);
    obey({ order: 'force' });
  });
  const scrapes = new Scrapes();
  const { url, shutdown, stopListening, metrics } = await startNode(settings, log, {
    scrape: () => scrapes.ask(),
    interrupted: interruption.signal,
  });
  starting = false;
  const ended = Promise.withResolvers<void>();
  const count = async (id: number | undefined): Promise<void> =>
    tell({ report: 'counted', id, metrics: await metrics.snapshot() });
  const noted = Promise.withResolvers<void>();
  /** What it counted would be gone with the process, which may end before a message of its own is read. */
  const bequeath = async (): Promise<void> => {
    if (!process.connected) return;
    await count(undefined);
    await isDoneWithin(noted.promise, notedMs);
  };
  const close = (closed: Promise<void>): void => void closed.then(bequeath).then(ended.resolve, ended.reject);
  obey = (order) => {
    switch (order.order) {
      case 'drain':
        if (order.alone) stopListening();
        return close(shutdown.begin());
      case 'force':
        return close(shutdown.force());
      case 'count':
        return void count(order.id);
      case 'answer':
        return scrapes.answered(order.id, order.body);
      case 'end':
        return noted.resolve();
    }
  };
  for (const order of orders) obey(order);
  tell({ report: 'listening', url });
  log.debug({ pid: process.pid }, 'a worker is listening');
  return { signal: (name) => tell({ report: 'signal', name }), ended: ended.promise };
}

/** Scrapes that this worker got. The keeper answers them, for all workers. */
class Scrapes {
  readonly #asked = new Map<number, (body: string) => void>();
  #count = 0;

  async ask(): Promise<RenderedMetrics> {
    const id = ++this.#count;
    const { promise, resolve } = Promise.withResolvers<string>();
    this.#asked.set(id, resolve);
    tell({ report: 'scrape', id });
    try {
      return { contentType: metricsContentType, body: await within(promise, answerMs, 'the main process') };
    } catch (cause) {
      throw new RealtimeError('unavailable', 'The metrics could not be collected.', { cause });
    } finally {
      this.#asked.delete(id);
    }
  }

  answered(id: number, body: string): void {
    this.#asked.get(id)?.(body);
  }
}

function tell(report: Report): void {
  // Without the connection nobody would read it; its loss is handled elsewhere.
  if (process.connected) process.send?.(report);
}
