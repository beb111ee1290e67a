// Why NATS does not let a client in. The driver gives no codes, so they are read from its errors, once and here.

import { errors } from '@nats-io/transport-node';

const { AuthorizationError, ConnectionError, UserAuthenticationExpiredError } = errors;

/** `code` says what is to be mended; `cause` is the driver's error. It does not pass by itself. */
export class NatsAccessFailure extends Error {
  readonly code: string;

  private constructor(code: string, cause: Error) {
    super(`NATS cannot be used: ${cause.message}`, { cause });
    this.name = 'NatsAccessFailure';
    this.code = code;
  }

  /** The error itself where it is about something else. */
  static of(error: unknown): unknown {
    if (error instanceof AuthorizationError || error instanceof UserAuthenticationExpiredError) {
      return new NatsAccessFailure('NATS_LOGIN', error);
    }
    const isWithoutTls = error instanceof ConnectionError && error.message.includes("not support 'tls'");
    return isWithoutTls ? new NatsAccessFailure('NO_TLS', error) : error;
  }
}
