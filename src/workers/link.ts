// The messages between a worker and its keeper, and the worker's node, which follows the keeper's orders.
//
// A signal may go to one worker alone, or to every process of the group, as from a terminal or a service manager. A
// worker cannot tell which, so it only reports the signal; the keeper knows, and orders what to do. When the connection
// is lost the keeper is dead, and the worker ends at once: the next start needs its name and its port.

import { startNode } from '../app/compose.ts';
import type { Logger } from '../app/logger.ts';
import type { Running } from '../app/running.ts';
import type { Settings } from '../settings/settings.ts';

/** From the keeper to a worker. */
export type Order =
  /** Shut down. `alone`: the other workers go on, so stop listening first and leave the port to them. */
  | { readonly order: 'drain'; readonly alone: boolean }
  /** Shut down, and wait for no client. */
  | { readonly order: 'force' };

/** From a worker to the keeper. */
export type Report =
  { readonly report: 'listening'; readonly url: string } | { readonly report: 'signal'; readonly name: string };

/** The worker's number, from 1. Set only in the environment of workers. */
export const workerVariable = 'SOBRANIE_WORKER';

/** Undefined in a process that is no worker. */
export function workerNumber(): number | undefined {
  const text = process.env[workerVariable];
  return text === undefined || process.send === undefined ? undefined : Number(text);
}

/** A forced close has deadlines of its own. This one is for a process in which they no longer work. */
const abandonedMs = 30_000;

/** Resolves when this process listens and has reported it. */
export async function startWorker(settings: Settings, log: Logger): Promise<Running> {
  const orders: Order[] = [];
  let obey = (order: Order): void => void orders.push(order);
  let starting = true;
  process.on('message', (message: Order) => obey(message));
  process.on('disconnect', () => {
    if (starting) process.exit(1);
    log.error('the main process is gone: closing at once');
    setTimeout(() => process.exit(1), abandonedMs);
    obey({ order: 'force' });
  });
  const { url, shutdown, stopListening } = await startNode(settings, log);
  starting = false;
  const ended = Promise.withResolvers<void>();
  obey = (order) => {
    if (order.order === 'drain' && order.alone) stopListening();
    const closed = order.order === 'drain' ? shutdown.begin() : shutdown.force();
    closed.then(ended.resolve, ended.reject);
  };
  for (const order of orders) obey(order);
  tell({ report: 'listening', url });
  log.debug({ pid: process.pid }, 'a worker is listening');
  return { signal: (name) => tell({ report: 'signal', name }), ended: ended.promise };
}

function tell(report: Report): void {
  // Without the connection nobody would read it; its loss is handled elsewhere.
  if (process.connected) process.send?.(report);
}
