// The key set behind a URL: fetched at the start, again from time to time, and once more for a key that it does not
// hold. Known keys go on working while its host is away, so an outage of the host is no outage here.
//
//   start     fetch in the background; only tokens that arrive before the first answer wait for it
//   fetched   again every ten minutes, so that a key that was withdrawn stops working
//   unknown   a token names a key that the set lacks: fetch at once, but seldom, since anyone can make up such tokens
//   failed    keep the known keys, and retry for ever with growing pauses
//
// The host is trusted with the keys and with nothing else. A request follows no redirect, reads a bounded body, and has
// a deadline for its last byte.

import {
  createLocalJWKSet,
  errors,
  type CryptoKey,
  type FlattenedJWSInput,
  type JSONWebKeySet,
  type JWSHeaderParameters,
} from 'jose';
import { RealtimeError } from '../protocol/realtime-error.ts';
import { backoffMs } from '../time/backoff.ts';
import type { Clock } from '../time/clock.ts';

export interface RemoteKeysOptions {
  readonly url: string;
  readonly clock: Clock;
  /** Called at the first of several failures in a row, and, without an error, when they end. */
  readonly log: (message: string, error?: unknown) => void;
  /** The deadline of one request. Default: 5,000. */
  readonly timeoutMs?: number;
  /** Default: ten minutes. */
  readonly refreshMs?: number;
  /** Unknown keys cause three fetches at once, and one more after each such time. Default: 10,000. */
  readonly cooldownMs?: number;
}

type LocalKeys = (header?: JWSHeaderParameters, token?: FlattenedJWSInput) => Promise<CryptoKey>;

const unknownFetchesMax = 3;
const failurePause = { firstMs: 1_000, maxMs: 30_000 };
/** A key with its chain of certificates takes some 10 KiB. */
const bytesMax = 256 << 10;

export class RemoteKeys {
  readonly #options: RemoteKeysOptions;
  readonly #cooldownMs: number;
  #keys: LocalKeys | undefined;
  #fetching: Promise<void> | undefined;
  #failures = 0;
  /** No token causes a fetch before; monotonic milliseconds. */
  #pausedUntil = 0;
  #unknownFetches = unknownFetchesMax;
  #unknownFetchesAt: number;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #closed = false;

  constructor(options: RemoteKeysOptions) {
    this.#options = options;
    this.#cooldownMs = options.cooldownMs ?? 10_000;
    this.#unknownFetchesAt = options.clock.monotonic();
  }

  start(): void {
    this.#fetchQuietly();
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
      // While the host is away an unknown key may be a new one: the caller gets `unavailable`, and the pauses limit how
      // often that causes a fetch.
      if (this.#failures === 0 && !this.#mayFetchForUnknown()) throw error;
    }
    await this.#fetchOnce();
    return (await this.#known())(header, token);
  }

  async #known(): Promise<LocalKeys> {
    if (this.#keys === undefined) await this.#fetchOnce();
    if (this.#keys === undefined) throw this.#unavailable();
    return this.#keys;
  }

  #mayFetchForUnknown(): boolean {
    const now = this.#options.clock.monotonic();
    const regained = Math.floor((now - this.#unknownFetchesAt) / this.#cooldownMs);
    if (regained > 0) {
      this.#unknownFetches = Math.min(unknownFetchesMax, this.#unknownFetches + regained);
      this.#unknownFetchesAt = now;
    }
    if (this.#unknownFetches === 0) return false;
    if (this.#fetching === undefined) this.#unknownFetches--;
    return true;
  }

  /** Callers at the same time share one request. */
  async #fetchOnce(): Promise<void> {
    if (this.#fetching === undefined) {
      if (this.#options.clock.monotonic() < this.#pausedUntil) throw this.#unavailable();
      this.#fetching = this.#fetch().finally(() => (this.#fetching = undefined));
    }
    await this.#fetching;
  }

  async #fetch(): Promise<void> {
    const { url, clock, timeoutMs = 5_000, refreshMs = 600_000 } = this.#options;
    try {
      this.#keys = createLocalJWKSet(await fetchKeySet(url, timeoutMs));
      if (this.#failures > 0) this.#options.log('the key set of JWKS_URL could be fetched again');
      this.#failures = 0;
      // Nodes that were started together do not fetch together.
      this.#fetchAfter(refreshMs * (0.9 + clock.random() / 5));
    } catch (cause) {
      const pauseMs = backoffMs(this.#failures, failurePause, clock);
      if (this.#failures++ === 0) this.#options.log('the key set of JWKS_URL cannot be fetched', cause);
      this.#pausedUntil = clock.monotonic() + pauseMs;
      this.#fetchAfter(pauseMs);
      throw this.#unavailable(cause);
    }
  }

  #fetchAfter(milliseconds: number): void {
    clearTimeout(this.#timer);
    if (this.#closed) return;
    this.#timer = setTimeout(() => this.#fetchQuietly(), milliseconds);
    this.#timer.unref();
  }

  #fetchQuietly(): void {
    this.#pausedUntil = 0;
    // A failure has been logged, and has scheduled the next try.
    this.#fetchOnce().catch(() => undefined);
  }

  #unavailable(cause?: unknown): RealtimeError {
    const waitMs = this.#pausedUntil - this.#options.clock.monotonic();
    const retryAfter = Math.max(1, Math.ceil(waitMs / 1_000));
    return new RealtimeError('unavailable', 'The keys that check tokens cannot be fetched now; retry.', {
      cause,
      retryAfter,
    });
  }
}

/** Rejects when the host does not answer with 200 and a set that holds a key. */
async function fetchKeySet(url: string, timeoutMs: number): Promise<JSONWebKeySet> {
  const response = await fetch(url, {
    headers: { accept: 'application/json, application/jwk-set+json' },
    redirect: 'manual',
    signal: AbortSignal.timeout(timeoutMs),
  });
  if (response.status !== 200) {
    await response.body?.cancel();
    throw new Error(`the key set's host answered ${response.status}`);
  }
  const set: unknown = JSON.parse(await boundedText(response));
  if (!isKeySet(set)) throw new Error("the key set's host answered with something else than a set of keys");
  return set;
}

async function boundedText(response: Response): Promise<string> {
  const decoder = new TextDecoder();
  let text = '';
  let bytes = 0;
  for await (const chunk of response.body ?? []) {
    bytes += chunk.byteLength;
    // Leaving the loop cancels the request.
    if (bytes > bytesMax) throw new Error(`the key set is larger than ${bytesMax} bytes`);
    text += decoder.decode(chunk, { stream: true });
  }
  return text + decoder.decode();
}

/** An empty set counts as a fault of the host: believing it would lock everyone out. */
function isKeySet(value: unknown): value is JSONWebKeySet {
  if (typeof value !== 'object' || value === null || !('keys' in value)) return false;
  const { keys } = value;
  return Array.isArray(keys) && keys.length > 0 && keys.every((key) => typeof key === 'object' && key !== null);
}
