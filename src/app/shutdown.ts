// Shutting down in order, so that clients lose nothing:
//
//   1. ready turns 503 and new connections are rejected
//   2. every client gets a `drain` with its own moment to reconnect, spread over the window
//   3. each connection is closed at its moment if it has not left; progress is logged. Without a window the clients leave
//      by themselves, until the deadline
//   4. connections that are left are closed with 1001
//   5. the parts of the node are closed from the top down: server, relay, sync layer, database
//
// A second signal skips the waiting. Signals that arrive together count as one: a terminal and a parent process may
// both pass on the same Ctrl-C.

import type { Clock } from '../time/clock.ts';
import type { Sessions } from '../core/sessions.ts';
import type { Logger } from './logger.ts';

export interface ShutdownParts {
  readonly sessions: Sessions;
  readonly clock: Clock;
  readonly log: Logger;
  readonly timeoutSeconds: number;
  /** 0: clients leave by themselves, or at the timeout. */
  readonly windowSeconds: number;
  /** Closes everything below the connections, in order. Each step has its own time limit. */
  readonly close: () => Promise<void>;
}

/** Reconnects per second that the remaining nodes are asked to take, where no window is set. */
const reconnectsPerSecond = 500;
const spreadMsMin = 1_000;
const pollMs = 50;
const progressEveryMs = 10_000;
const farewellMs = 1_000;
const sameSignalMs = 500;

export class Shutdown {
  readonly #parts: ShutdownParts;
  #startedAt: number | undefined;
  #startedAtUnixMs: number | undefined;
  #forced = false;
  #finished: Promise<void> | undefined;

  constructor(parts: ShutdownParts) {
    this.#parts = parts;
  }

  get started(): boolean {
    return this.#startedAt !== undefined;
  }

  /** Unix milliseconds; undefined before. */
  get startedAt(): number | undefined {
    return this.#startedAtUnixMs;
  }

  /** Seconds since it began; 0 before. */
  get seconds(): number {
    return this.#startedAt === undefined ? 0 : (this.#parts.clock.monotonic() - this.#startedAt) / 1_000;
  }

  /** A signal: the first begins, a later one forces. Resolves when everything is closed. */
  signal(name: string): Promise<void> {
    const { log } = this.#parts;
    if (this.#finished === undefined) {
      log.info({ signal: name }, 'shutting down');
      return this.begin();
    }
    if (this.seconds * 1_000 > sameSignalMs && !this.#forced) {
      log.warn({ signal: name }, 'second signal: closing at once');
      this.#forced = true;
    }
    return this.#finished;
  }

  /** Begins if it has not begun, and waits for no client. */
  force(): Promise<void> {
    this.#forced = true;
    return this.begin();
  }

  begin(): Promise<void> {
    this.#startedAt ??= this.#parts.clock.monotonic();
    this.#startedAtUnixMs ??= this.#parts.clock.now();
    this.#finished ??= this.#run();
    return this.#finished;
  }

  async #run(): Promise<void> {
    const { sessions, log, close } = this.#parts;
    this.#tellClients();
    await this.#waitForClients();
    if (sessions.size > 0) log.warn({ connections: sessions.size }, 'closing the connections that are left');
    sessions.closeAll();
    await this.#waitFor(() => sessions.size === 0, farewellMs);
    await close();
    log.info({ seconds: Number(this.seconds.toFixed(3)) }, 'shut down');
  }

  /** Milliseconds until the connections that are left are closed. */
  get #limitMs(): number {
    const { timeoutSeconds, windowSeconds } = this.#parts;
    return (windowSeconds > 0 ? Math.min(windowSeconds, timeoutSeconds) : timeoutSeconds) * 1_000;
  }

  #tellClients(): void {
    const { sessions, clock, windowSeconds } = this.#parts;
    const limitMs = this.#limitMs;
    const deadline = clock.now() + limitMs;
    const closes = windowSeconds > 0;
    const wanted = closes ? limitMs : Math.max(spreadMsMin, (sessions.size / reconnectsPerSecond) * 1_000);
    sessions.drain({ spreadMs: Math.min(limitMs, wanted), deadline, closes });
  }

  async #waitForClients(): Promise<void> {
    const { sessions, clock, log } = this.#parts;
    let progressAt = clock.monotonic() + progressEveryMs;
    await this.#waitFor(() => {
      if (clock.monotonic() >= progressAt) {
        progressAt += progressEveryMs;
        log.info({ connections: sessions.size }, 'waiting for connections to leave');
      }
      sessions.closeDue();
      return this.#forced || sessions.size === 0;
    }, this.#limitMs);
  }

  async #waitFor(done: () => boolean, timeoutMs: number): Promise<void> {
    const { clock } = this.#parts;
    const deadline = clock.monotonic() + timeoutMs;
    while (!done() && clock.monotonic() < deadline) await clock.sleep(pollMs);
  }
}
