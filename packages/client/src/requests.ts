// Commands that wait for their answer: over lost links, limits and pauses, until they are answered, aborted or too late.
// Commands go out in the order in which they were made; each is answered by its id.

import type { Clock } from './clock.ts';
import { SobranieError } from './errors.ts';
import { copyExact, printExact } from './exact-json.ts';
import type { Command, ErrorFrame, ServerFrame } from './protocol.ts';

export interface RequestOptions {
  /** Rejects the promise with its reason. What the server has taken by then stays done. */
  readonly signal?: AbortSignal | undefined;
  /**
   * Milliseconds after which the promise rejects with `timeout`; 90,000 unless given, which is
   * longer than a rate limit lasts.
   */
  readonly timeoutMs?: number | undefined;
}

interface Pending {
  readonly command: Command;
  readonly mayRepeat: () => boolean;
  readonly deadline: number;
  isPaused: boolean;
  tries: number;
  readonly settle: (answer: ServerFrame | SobranieError) => void;
}

export class Requests {
  readonly #clock: Clock;
  /** Does nothing while there is no link: `sendAll` follows when there is one. */
  readonly #send: (command: Command) => void;
  readonly #pending = new Map<unknown, Pending>();
  #nextId = 1;

  constructor(clock: Clock, send: (command: Command) => void) {
    this.#clock = clock;
    this.#send = send;
  }

  get size(): number {
    return this.#pending.size;
  }

  /** `mayRepeat` says whether it may be sent again when the link was lost before the answer. */
  add<Frame extends ServerFrame>(
    given: Command,
    { signal, timeoutMs = 90_000 }: RequestOptions,
    mayRepeat: () => boolean,
    done: () => void,
  ): Promise<Frame> {
    const id = this.#nextId++;
    // What cannot be sent must not wait among what can.
    const command = { ...copyExact(given), id };
    return new Promise((resolve, reject) => {
      const finish = (settle: () => void): void => {
        this.#pending.delete(id);
        stop();
        signal?.removeEventListener('abort', abort);
        settle();
        done();
      };
      const abort = (): void => finish(() => reject(signal?.reason as Error));
      const settle = (answer: ServerFrame | SobranieError): void => {
        finish(() => (answer instanceof SobranieError ? reject(answer) : resolve(answer as Frame)));
      };
      const stop = this.#clock.after(timeoutMs, () => settle(new SobranieError('timeout', { retryable: true })));
      const deadline = this.#clock.now() + timeoutMs;
      this.#pending.set(id, { command, mayRepeat, deadline, isPaused: false, tries: 0, settle });
      if (signal?.aborted) return abort();
      signal?.addEventListener('abort', abort);
      this.#send(command);
    });
  }

  /** Whether the frame was an answer. */
  answer(frame: ServerFrame & { readonly id?: unknown }): boolean {
    const pending = this.#pending.get(frame.id);
    if (pending === undefined) return false;
    if (frame.type === 'error') this.#refused(pending, frame);
    else pending.settle(frame);
    return true;
  }

  /** There is a link. */
  sendAll(): void {
    for (const { command, isPaused } of this.#pending.values()) if (!isPaused) this.#send(command);
  }

  /** The link was lost: what may have been done, and would be done twice, is given up. */
  lost(): void {
    for (const { mayRepeat, settle } of [...this.#pending.values()]) {
      if (!mayRepeat()) settle(new SobranieError('unavailable', { retryable: true, message: 'connection lost' }));
    }
  }

  fail(error: SobranieError): void {
    for (const { settle } of [...this.#pending.values()]) settle(error);
  }

  /** Gives up the publication that is largest: a frame too large ended the link. False if there is none. */
  dropLargest(): boolean {
    let largest: Pending | undefined;
    let length = 0;
    for (const pending of this.#pending.values()) {
      const own = printExact(pending.command).length;
      if (own > length) [largest, length] = [pending, own];
    }
    largest?.settle(new SobranieError('too_large'));
    return largest !== undefined;
  }

  /** Later, if the server says so and there is time. */
  #refused(pending: Pending, frame: ErrorFrame): void {
    const clock = this.#clock;
    const waitMs = (frame.retryAfter ?? 0) * 1_000 + clock.random(Math.min(10_000, 500 * 2 ** pending.tries++));
    if (!frame.retryable || clock.now() + waitMs > pending.deadline) {
      return pending.settle(new SobranieError(frame.code, frame));
    }
    pending.isPaused = true;
    clock.after(waitMs, () => {
      pending.isPaused = false;
      if (this.#pending.has(pending.command.id)) this.#send(pending.command);
    });
  }
}
