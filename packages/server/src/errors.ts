// The one error type of a backend's calls: what the server refused, and what failed on the way to it.

export interface BackendErrorDetails {
  readonly message?: string | undefined;
  readonly status?: number | undefined;
  readonly retryable?: boolean | undefined;
  readonly retryAfter?: number | undefined;
  readonly cause?: unknown;
}

/**
 * What a call rejects with, an abort excepted, which rejects with the signal's reason. Codes are those of the server's
 * protocol, such as `forbidden` or `too_large`; two more are made here: `timeout`, no answer came in time, and
 * `unreachable`, there was no connection or what answered is no Sobranie server.
 *
 * @example
 * try {
 *   await backend.publish('orders', order);
 * } catch (error) {
 *   if (!(error instanceof BackendError) || !error.retryable) throw error;
 *   later.push(order);
 * }
 */
export class BackendError extends Error {
  override readonly name = 'BackendError';
  readonly code: string;
  /** Of the HTTP answer; undefined where none came. */
  readonly status: number | undefined;
  /** Whether the same call may succeed later. */
  readonly retryable: boolean;
  /** Seconds after which it may, if the server said so. */
  readonly retryAfter: number | undefined;

  constructor(code: string, { message, status, retryable = false, retryAfter, cause }: BackendErrorDetails = {}) {
    super(message ?? code, cause === undefined ? undefined : { cause });
    this.code = code;
    this.status = status;
    this.retryable = retryable;
    this.retryAfter = retryAfter;
  }
}
