// The worker's end of the line to the process that keeps it: what the two say to each other, and a node that obeys.
//
// Signals reach a worker on two ways: a terminal or a service manager may signal every process of a group at once. So
// a worker does nothing by itself; it reports the signal, and its keeper, who knows whether all or only this one shall
// go, says what to do. When the line is gone the keeper is dead, and the worker follows at once: nobody would look
// after it, and the next start needs its name and its port.

import { startNode } from '../app/compose.ts';
import type { Logger } from '../app/logger.ts';
import type { Running } from '../app/running.ts';
import type { Settings } from '../settings/settings.ts';

/** From the keeper. */
export type Order =
  /** The server ends: let nobody new in, and serve on until told to drain. */
  | { readonly order: 'refuse' }
  /** Shut down. `alone` if the others serve on: then the port is left to them first. */
  | { readonly order: 'drain'; readonly alone: boolean }
  /** Shut down and wait for nobody. */
  | { readonly order: 'force' };

/** From the worker. */
export type Report =
  { readonly report: 'listening'; readonly url: string } | { readonly report: 'signal'; readonly name: string };

/** Set in the environment of workers alone: which one this is, from 1. */
export const workerVariable = 'SOBRANIE_WORKER';

/** Undefined in a process that is no worker. */
export function workerNumber(): number | undefined {
  const text = process.env[workerVariable];
  return text === undefined || process.send === undefined ? undefined : Number(text);
}

/** Closing everything has limits of its own; this one is for a process in which they do not work any more. */
const abandonedMs = 30_000;

/** Resolves when this process listens and the keeper knows. */
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
    if (order.order === 'refuse') {
      shutdown.refuseNew();
      return;
    }
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
  // Without a line there is nobody to tell, and the end of it has been noticed.
  if (process.connected) process.send?.(report);
}
