// The key set behind a URL: fetched at the start, looked at again from time to time, and asked anew for a key that it
// does not hold. Known keys go on working while its host is away, so an outage there is none here.
//
//   start     fetch in the background; nobody waits for it but who has a token before it is there
//   fetched   again every ten minutes, so that a key that was taken back counts no more
//   unknown   a token names a key that the set lacks: fetch at once, but seldom, since anyone can make such tokens up
//   failed    keep what is known, try again by itself with growing pauses, for ever

import { createLocalJWKSet, errors, type CryptoKey, type FlattenedJWSInput, type JWSHeaderParameters } from 'jose';
import { backoffMs } from '../time/backoff.ts';
import type { Clock } from '../time/clock.ts';
import { RealtimeError } from '../protocol/realtime-error.ts';
import { fetchKeySet } from './fetch-key-set.ts';

export interface RemoteKeysOptions {
  readonly url: string;
  readonly clock: Clock;
  /** Told of the first of several failures in a row, and, without an error, of their end. */
  readonly log: (message: string, error?: unknown) => void;
  /** A host that has not answered whole by then counts as away. Default: 5,000. */
  readonly timeoutMs?: number;
  /** Default: ten minutes. */
  readonly refreshMs?: number;
  /** Unknown keys may be asked about three times at once, and once more after each such time. Default: 10,000. */
  readonly cooldownMs?: number;
}

type LocalKeys = (header?: JWSHeaderParameters, token?: FlattenedJWSInput) => Promise<CryptoKey>;

const unknownAsksMax = 3;
const failurePause = { firstMs: 1_000, maxMs: 30_000 };

export class RemoteKeys {
  readonly #options: RemoteKeysOptions;
  readonly #cooldownMs: number;
  #keys: LocalKeys | undefined;
  #asking: Promise<void> | undefined;
  #failures = 0;
  /** After a failure nobody asks before; monotonic milliseconds. */
  #silentUntil = 0;
  #unknownAsks = unknownAsksMax;
  #unknownAsksAt: number;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #closed = false;

  constructor(options: RemoteKeysOptions) {
    this.#options = options;
    this.#cooldownMs = options.cooldownMs ?? 10_000;
    this.#unknownAsksAt = options.clock.monotonic();
  }

  start(): void {
    this.#askQuietly();
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
  }

  /** The key that a token names. Rejects with `unavailable` while there is no set, else with jose's errors. */
  async key(header: JWSHeaderParameters, token: FlattenedJWSInput): Promise<CryptoKey> {
    try {
      return await (
        await this.#known()
      )(header, token);
    } catch (error) {
      if (!(error instanceof errors.JWKSNoMatchingKey)) throw error;
      // While its host is away the set says nothing about a key that may be new, and the pauses keep from asking often.
      if (this.#failures === 0 && !this.#mayAskForUnknown()) throw error;
    }
    await this.#ask();
    return (await this.#known())(header, token);
  }

  async #known(): Promise<LocalKeys> {
    if (this.#keys === undefined) await this.#ask();
    if (this.#keys === undefined) throw this.#unavailable();
    return this.#keys;
  }

  #mayAskForUnknown(): boolean {
    const now = this.#options.clock.monotonic();
    const regained = Math.floor((now - this.#unknownAsksAt) / this.#cooldownMs);
    if (regained > 0) {
      this.#unknownAsks = Math.min(unknownAsksMax, this.#unknownAsks + regained);
      this.#unknownAsksAt = now;
    }
    if (this.#unknownAsks === 0) return false;
    if (this.#asking === undefined) this.#unknownAsks--;
    return true;
  }

  /** All who need the set share one request. */
  async #ask(): Promise<void> {
    if (this.#asking === undefined) {
      if (this.#options.clock.monotonic() < this.#silentUntil) throw this.#unavailable();
      this.#asking = this.#fetch().finally(() => (this.#asking = undefined));
    }
    await this.#asking;
  }

  async #fetch(): Promise<void> {
    const { url, clock, timeoutMs = 5_000, refreshMs = 600_000 } = this.#options;
    try {
      this.#keys = createLocalJWKSet(await fetchKeySet(url, timeoutMs));
      if (this.#failures > 0) this.#options.log('the key set of JWKS_URL could be fetched again');
      this.#failures = 0;
      // Nodes that were started together need not ask together.
      this.#askAgainAfter(refreshMs * (0.9 + clock.random() / 5));
    } catch (cause) {
      const pauseMs = backoffMs(this.#failures, failurePause, clock);
      if (this.#failures++ === 0) this.#options.log('the key set of JWKS_URL cannot be fetched', cause);
      this.#silentUntil = clock.monotonic() + pauseMs;
      this.#askAgainAfter(pauseMs);
      throw this.#unavailable(cause);
    }
  }

  #askAgainAfter(milliseconds: number): void {
    clearTimeout(this.#timer);
    if (this.#closed) return;
    this.#timer = setTimeout(() => this.#askQuietly(), milliseconds);
    this.#timer.unref();
  }

  #askQuietly(): void {
    this.#silentUntil = 0;
    // A failure has been logged, and the next try is set up.
    this.#ask().catch(() => undefined);
  }

  #unavailable(cause?: unknown): RealtimeError {
    const waitMs = this.#silentUntil - this.#options.clock.monotonic();
    const retryAfter = Math.max(1, Math.ceil(waitMs / 1_000));
    return new RealtimeError('unavailable', 'The keys that tokens are checked by cannot be fetched now; retry.', {
      cause,
      retryAfter,
    });
  }
}
