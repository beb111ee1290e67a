// Open files. Each connection takes one, and so does whatever the node needs itself: database, Redis, files. At the limit
// nothing more can be opened. Worse, the runtime asks the kernel for the next connection again and again, cannot take it,
// and uses a whole core. So:
//
//   1. at the start MAX_CONNECTIONS is lowered to what the limit has room for, with a warning
//   2. a few files are kept open without use, for the node's own needs
//   3. before the limit the node stops listening, and the files that were kept are given back. Clients are refused by the
//      kernel, so a proxy tries another node. Once enough connections have ended, the node listens again
//
// It counts connections that have sent no request too, of which nothing else in this process knows.

import { closeSync, openSync, readdirSync, readFileSync, statSync } from 'node:fs';
import type { Logger } from './logger.ts';

/** What the node itself opens: pools of the database, Redis, listeners, its own files. */
const ownFiles = 60;
const lookEveryMs = 100;
/** Where the count is a walk through a folder. */
const lookSlowlyEveryMs = 1_000;
const nobodysFile = '/dev/null';

export interface Reserve {
  /** Files that this process may have open. */
  readonly limit: number;
  /** As many are left when the node stops listening, and twice as many when it listens again. */
  readonly spare: number;
  /** Connections for which there is room. */
  readonly connections: number;
}

/** Undefined where the system does not tell its limit, or has none. */
export function openFilesReserve(): Reserve | undefined {
  const limit = openFilesLimit();
  if (limit === undefined) return undefined;
  const spare = Math.min(64, Math.max(8, Math.floor(limit / 10)));
  return { limit, spare, connections: Math.max(1, limit - 2 * spare - ownFiles) };
}

/** MAX_CONNECTIONS, or fewer where the limit on open files has no room for as many. */
export function connectionsWithin(reserve: Reserve | undefined, wanted: number, log: Logger): number {
  if (reserve === undefined || wanted <= reserve.connections) return wanted;
  const { limit, connections } = reserve;
  log.warn(
    { openFiles: limit, maxConnections: wanted, lowered: connections },
    'MAX_CONNECTIONS is more than the limit on open files has room for, and was lowered: raise `ulimit -n`',
  );
  return connections;
}

export interface OpenFilesOptions {
  readonly reserve: Reserve;
  /** Undefined where the node cannot stop listening for a while. */
  readonly listening: { pause(): void; resume(): void } | undefined;
  readonly log: Logger;
}

export class OpenFiles {
  readonly #options: OpenFilesOptions;
  #kept: number[] = [];
  #timer: ReturnType<typeof setInterval> | undefined;
  #paused = false;

  constructor(options: OpenFilesOptions) {
    this.#options = options;
  }

  start(): void {
    this.#keep();
    this.#timer ??= setInterval(() => this.#look(), countsQuickly() ? lookEveryMs : lookSlowlyEveryMs);
  }

  close(): void {
    clearInterval(this.#timer);
    this.#giveBack();
  }

  #look(): void {
    const { reserve, listening, log } = this.#options;
    const left = reserve.limit - openFilesCount();
    if (!this.#paused && left < reserve.spare) {
      this.#paused = true;
      listening?.pause();
      this.#giveBack();
      log.warn({ openFiles: reserve.limit, left }, 'open files are running out: new connections are refused');
    } else if (this.#paused && left > 2 * reserve.spare) {
      this.#paused = false;
      this.#keep();
      listening?.resume();
      log.info({ openFiles: reserve.limit, left }, 'new connections are accepted again');
    }
  }

  #keep(): void {
    while (this.#kept.length < this.#options.reserve.spare / 2) this.#kept.push(openSync(nobodysFile, 'r'));
  }

  #giveBack(): void {
    for (const file of this.#kept.splice(0)) closeSync(file);
  }
}

function openFilesLimit(): number | undefined {
  try {
    const soft = /^Max open files\s+(\d+)/m.exec(readFileSync('/proc/self/limits', 'utf8'))?.[1];
    return soft === undefined ? undefined : Number(soft);
  } catch {
    // Not Linux.
    return undefined;
  }
}

/** Since Linux 6.2 the size of the folder is its count. */
function countsQuickly(): boolean {
  return statSync('/proc/self/fd').size > 0;
}

function openFilesCount(): number {
  return statSync('/proc/self/fd').size || readdirSync('/proc/self/fd').length;
}
