// The one error type of this package: what the server refused, and what failed on the way to it.

import type { ErrorCode } from './protocol.ts';

/**
 * A failure with a code. Codes of the server are those of its protocol; of the client's own, `timeout` means that no
 * answer came in time, `closed` that the client was closed, `removed` and `disconnected` that a backend or an operator
 * ended the subscription or the connection, `no_transport` that neither WebSocket nor fetch is there.
 */
export type SobranieErrorCode = ErrorCode | 'timeout' | 'closed' | 'removed' | 'disconnected' | 'no_transport';

export interface SobranieErrorDetails {
  readonly message?: string | undefined;
  readonly retryable?: boolean | undefined;
  readonly retryAfter?: number | undefined;
  readonly channel?: string | undefined;
  readonly cause?: unknown;
}

/**
 * What every promise of this package rejects with, an abort excepted, which rejects with the signal's reason.
 *
 * @example
 * try {
 *   await client.channel('chat:42').publish({ text: 'hello' });
 * } catch (error) {
 *   if (error instanceof SobranieError && error.code === 'forbidden') showReadOnly();
 *   else throw error;
 * }
 */
export class SobranieError extends Error {
  override readonly name = 'SobranieError';
  declare readonly code: SobranieErrorCode;
  /** Whether the same request may succeed later. */
  declare readonly retryable: boolean;
  /** Seconds after which it may, if the server said so. */
  declare readonly retryAfter: number | undefined;
  declare readonly channel: string | undefined;

  constructor(code: string, { message, retryable = false, retryAfter, channel, cause }: SobranieErrorDetails = {}) {
    super(message ?? code, cause === undefined ? undefined : { cause });
    Object.assign(this, { code, retryable, retryAfter, channel });
  }
}
