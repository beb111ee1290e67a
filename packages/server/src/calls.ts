// One call over HTTP: its time limit, its errors, and the retries of what may be retried without harm.

import { BackendError } from './errors.ts';

/** How calls reach the server; as the global `fetch`. */
export type Fetch = (request: Request) => Promise<Response> | Response;

export interface CallOptions {
  /** Ends the call, its retries too. */
  readonly signal?: AbortSignal | undefined;
}

export interface CallerOptions {
  readonly url: string;
  readonly apiKey: string | undefined;
  readonly fetch: Fetch;
  readonly timeoutMs: number;
  readonly retries: number;
}

/** Milliseconds before the first retry at most; each next has twice as much. */
const pauseMs = 200;
const pauseMsMax = 5_000;
/** Runtimes refuse a longer timer, or run it at once. */
const timerMsMax = 2 ** 31 - 1;

export class Caller {
  readonly #options: CallerOptions;

  constructor(options: CallerOptions) {
    // In `localhost:3000` the part before the colon is the scheme.
    const scheme = URL.canParse(options.url) ? new URL(options.url).protocol : '';
    if (!/^https?:$/.test(scheme)) {
      throw new TypeError(`The address of the server begins with http:// or https://, unlike "${options.url}".`);
    }
    this.#options = options;
  }

  /** `path`: the parts below `/realtime`. */
  async get<Answer>(path: readonly string[], call: CallOptions & { query?: URLSearchParams } = {}): Promise<Answer> {
    const query = call.query === undefined || call.query.size === 0 ? '' : `?${call.query.toString()}`;
    return this.#retried('GET', pathOf(path) + query, undefined, call);
  }

  /** The body is sent again as it is, so a call that must not be done twice carries a key in it. */
  async post<Answer>(path: readonly string[], body: unknown, call: CallOptions = {}): Promise<Answer> {
    return this.#retried('POST', pathOf(path), body === undefined ? undefined : JSON.stringify(body), call);
  }

  async #retried<Answer>(method: string, path: string, body: string | undefined, call: CallOptions): Promise<Answer> {
    for (let tries = 0; ; tries++) {
      try {
        return await this.#once<Answer>(method, path, body, call.signal);
      } catch (error) {
        if (!(error instanceof BackendError) || !error.retryable || tries >= this.#options.retries) throw error;
        const pause = Math.random() * Math.min(pauseMs * 2 ** tries, pauseMsMax);
        const asked = (error.retryAfter ?? 0) * 1_000;
        // A wait that is longer than a call may take is the caller's to decide.
        if (asked > this.#options.timeoutMs) throw error;
        await sleep(asked + pause, call.signal);
      }
    }
  }

  async #once<Answer>(
    method: string,
    path: string,
    body: string | undefined,
    signal: AbortSignal | undefined,
  ): Promise<Answer> {
    const { url, apiKey, fetch, timeoutMs } = this.#options;
    signal?.throwIfAborted();
    const timeout = AbortSignal.timeout(Math.min(Math.ceil(timeoutMs), timerMsMax));
    const headers = new Headers();
    if (apiKey !== undefined) headers.set('authorization', `Bearer ${apiKey}`);
    if (body !== undefined) headers.set('content-type', 'application/json');
    try {
      const request = new Request(new URL(path, url.endsWith('/') ? url : `${url}/`).href, {
        method,
        headers,
        redirect: 'error',
        signal: signal === undefined ? timeout : AbortSignal.any([signal, timeout]),
        ...(body === undefined ? {} : { body }),
      });
      const response = await fetch(request);
      return await read<Answer>(response);
    } catch (cause) {
      if (cause instanceof BackendError) throw cause;
      signal?.throwIfAborted();
      if (timeout.aborted) {
        throw new BackendError('timeout', { message: `no answer within ${timeoutMs} ms`, retryable: true, cause });
      }
      const message = `no answer from ${new URL(url).origin}: ${reasonOf(cause)}`;
      throw new BackendError('unreachable', { message, retryable: true, cause });
    }
  }
}

/** Node says "fetch failed", and why in the cause: a refused connection, a certificate, a redirect. */
function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  if (error.cause instanceof Error) return reasonOf(error.cause);
  // Of several addresses that were tried there is no message, but a code.
  return error.message || ('code' in error ? String(error.code) : error.name);
}

/** An empty part, or dots alone, would make the address of another call. */
function pathOf(parts: readonly string[]): string {
  const bad = parts.find((part) => /^\.{0,2}$/.test(part));
  if (bad !== undefined) throw new BackendError('bad_request', { message: `"${bad}" cannot be a part of an address` });
  return ['realtime', ...parts].map(encodeURIComponent).join('/');
}

async function read<Answer>(response: Response): Promise<Answer> {
  const text = await response.text();
  const { status } = response;
  let answer: unknown;
  try {
    answer = JSON.parse(text);
  } catch (cause) {
    // A gateway in between that has no server to ask answers with a page of its own.
    const message = `an answer of status ${status} that is no JSON`;
    throw new BackendError('unreachable', { message, status, retryable: status >= 500, cause });
  }
  if (response.ok) return answer as Answer;
  const error = (answer as { error?: { code?: unknown; message?: unknown; retryable?: unknown } } | null)?.error;
  const seconds = Number(response.headers.get('retry-after') ?? Number.NaN);
  throw new BackendError(typeof error?.code === 'string' ? error.code : 'unreachable', {
    message: typeof error?.message === 'string' ? error.message : `the server answered ${status}`,
    status,
    retryable: typeof error?.retryable === 'boolean' ? error.retryable : status >= 500,
    retryAfter: Number.isFinite(seconds) ? seconds : undefined,
  });
}

function sleep(milliseconds: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const end = () => {
      clearTimeout(timer);
      reject(signal?.reason as Error);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', end);
      resolve();
    }, milliseconds);
    signal?.addEventListener('abort', end, { once: true });
  });
}
