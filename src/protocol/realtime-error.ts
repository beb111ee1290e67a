// The one expected error: it becomes an `error` frame on a WebSocket and an error body over HTTP.

import { errorCodes, type ErrorCode } from './codes.ts';

export interface ErrorBody {
  readonly code: ErrorCode;
  readonly message: string;
  readonly retryable: boolean;
  readonly retryAfter?: number;
}

/**
 * An expected failure with a code of the wire. Clients see the code and its fixed text, or `message` if one is given,
 * which must hold nothing secret. Only the log sees `cause`.
 */
export class RealtimeError extends Error {
  readonly code: ErrorCode;
  /** Seconds after which a retry may succeed. */
  readonly retryAfter: number | undefined;
  /** Over HTTP. */
  readonly status: number;

  /** `status`: where the code's own does not fit. */
  constructor(code: ErrorCode, message?: string, options?: { cause?: unknown; retryAfter?: number; status?: number }) {
    super(message ?? errorCodes[code].message, options?.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'RealtimeError';
    this.code = code;
    this.retryAfter = options?.retryAfter;
    this.status = options?.status ?? errorCodes[code].status;
  }

  /** An error that says when a retry may succeed can be retried, whatever its code. */
  get retryable(): boolean {
    return errorCodes[this.code].retryable || this.retryAfter !== undefined;
  }

  body(): ErrorBody {
    const { code, message, retryable, retryAfter } = this;
    return retryAfter === undefined ? { code, message, retryable } : { code, message, retryable, retryAfter };
  }
}
