// Whether this node works, whether it has ever, whether it should get traffic; and if not, since when and why.
//
// A part that readiness rests on is a check: `add` it. All checks run together, for each answer anew and every few
// seconds by themselves, so that the beginning of an outage is known although nobody asked. Answers that are asked for
// while a run is under way share it. What a part logs meanwhile is a hint: it tells why, where a check only sees that no
// answer came.
//
// Anyone may read these answers. They hold no addresses and no names: the log has those.

import type { Check, HealthReport } from '../api/operations.ts';
import type { Clock } from '../time/clock.ts';
import { within } from '../time/within.ts';
import { plainCause, tellingCause } from './causes.ts';
import type { Logger } from './logger.ts';

export interface HealthOptions {
  readonly clock: Clock;
  /** Unix milliseconds; undefined while it does not drain. */
  readonly drainingSince: () => number | undefined;
  readonly log: Logger;
  /** Of each check. Default: 2,000. */
  readonly timeoutMs?: number;
}

/** Resolves when all is well. Rejects with the cause: a `HealthFault` is shown as it is, other errors by their code. */
export type RunCheck = (timeoutMs: number) => Promise<unknown>;

interface State {
  readonly run: RunCheck;
  /** Readiness rests on it. */
  readonly decides: boolean;
  ok: boolean | undefined;
  since: number;
  lookedAt: number;
  lastError: { readonly message: string; readonly at: number } | undefined;
  hint: { readonly error: unknown; readonly at: number } | undefined;
}

const everyMs = 5_000;
/** Connections are tried again within this time, and each try that fails is a hint. */
const hintAgeMs = 15_000;

export class Health {
  readonly #options: HealthOptions;
  readonly #checks = new Map<string, State>();
  readonly #startedAt: number;
  #running: Promise<void> | undefined;
  #timer: ReturnType<typeof setInterval> | undefined;
  #wasReady = false;

  constructor(options: HealthOptions) {
    this.#options = options;
    this.#startedAt = options.clock.now();
  }

  /** Each name once. */
  add(name: string, run: RunCheck, decides = true): void {
    const now = this.#options.clock.now();
    const state = { run, decides, ok: undefined, since: now, lookedAt: now, lastError: undefined, hint: undefined };
    this.#checks.set(name, state);
  }

  /** As a check, of what the node can do without: traffic goes to it all the same. Each name once. */
  addNote(name: string, run: RunCheck): void {
    this.add(name, run, false);
  }

  /** A part noticed a failure that may be why its check fails. */
  hint(name: string, error: unknown): void {
    const state = this.#checks.get(name);
    if (state !== undefined && tellingCause(error) !== undefined) state.hint = { error, at: this.#options.clock.now() };
  }

  /** Begins to look by itself. */
  start(): void {
    this.#timer = setInterval(() => void this.#run(), everyMs);
    void this.#run();
  }

  close(): void {
    clearInterval(this.#timer);
  }

  /** As last seen; undefined before. */
  isOk(name: string): boolean | undefined {
    return this.#checks.get(name)?.ok;
  }

  /** Whether all that readiness rests on works, as last seen; undefined before. */
  get isReady(): boolean | undefined {
    const isNew = [...this.#checks.values()].some(({ ok, decides }) => ok === undefined && decides);
    return isNew ? undefined : this.#allOk;
  }

  /** Whether it should get traffic. */
  async ready(): Promise<HealthReport> {
    await this.#run();
    const checks = this.#shown();
    const drainingSince = this.#options.drainingSince();
    if (drainingSince !== undefined) {
      const since = iso(drainingSince);
      const message = 'the node is shutting down';
      return {
        status: 'draining',
        checks: { ...checks, draining: { ok: false, since, age: 0, lastError: { message, at: since } } },
      };
    }
    return { status: this.#allOk ? 'ok' : 'unavailable', checks };
  }

  /** Whether it was ready once. It stays so, whatever becomes of it. */
  async started(): Promise<HealthReport> {
    if (!this.#wasReady) await this.#run();
    return { status: this.#wasReady ? 'ok' : 'starting', checks: this.#shown() };
  }

  /** That it answers is the check. */
  live(): HealthReport {
    return { status: 'ok', checks: { process: { ok: true, since: iso(this.#startedAt), age: 0 } } };
  }

  get #allOk(): boolean {
    return [...this.#checks.values()].every(({ ok, decides }) => ok === true || !decides);
  }

  #run(): Promise<void> {
    this.#running ??= this.#runAll().finally(() => (this.#running = undefined));
    return this.#running;
  }

  async #runAll(): Promise<void> {
    await Promise.all(Array.from(this.#checks, ([name, state]) => this.#look(name, state)));
    this.#wasReady ||= this.#allOk;
  }

  async #look(name: string, state: State): Promise<void> {
    const { clock, log, timeoutMs = 2_000 } = this.#options;
    const wasOk = state.ok;
    try {
      await within(state.run(timeoutMs), timeoutMs, 'the check');
      state.ok = true;
    } catch (error) {
      state.ok = false;
      state.lastError = { message: this.#words(state, error), at: clock.now() };
      if (wasOk !== false)
        log.warn(
          { err: error, check: name },
          `${state.decides ? 'not ready: ' : ''}${name}: ${state.lastError.message}`,
        );
    }
    const now = clock.now();
    state.lookedAt = now;
    if (wasOk === state.ok) return;
    if (wasOk === false)
      log.info(
        { check: name, seconds: (now - state.since) / 1_000 },
        `${state.decides ? 'ready' : 'well'} again: ${name}`,
      );
    state.since = now;
  }

  #words({ hint }: State, error: unknown): string {
    const own = tellingCause(error);
    if (own !== undefined) return own;
    const hinted = hint !== undefined && this.#options.clock.now() - hint.at < hintAgeMs;
    return (hinted ? tellingCause(hint.error) : undefined) ?? plainCause(error) ?? 'it failed: the log says why';
  }

  #shown(): Record<string, Check> {
    const now = this.#options.clock.now();
    return Object.fromEntries(
      Array.from(this.#checks, ([name, { ok, since, lookedAt, lastError }]) => [
        name,
        {
          ok: ok === true,
          since: iso(since),
          age: Math.max(0, now - lookedAt) / 1_000,
          lastError: lastError && { message: lastError.message, at: iso(lastError.at) },
        },
      ]),
    );
  }
}

function iso(milliseconds: number): string {
  return new Date(milliseconds).toISOString();
}
