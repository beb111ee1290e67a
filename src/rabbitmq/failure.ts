// What the driver rejects with when RabbitMQ does not let it in, or to what it asks for. It gives no codes, so they are read from its words, once and
// here.

import { isPassingFailure } from '../time/patiently.ts';

/** `code` says what is to be mended; `cause` is the driver's error. */
export class RabbitFailure extends Error {
  readonly code: string;

  private constructor(code: string, cause: Error) {
    super(`RabbitMQ cannot be used: ${cause.message}`, { cause });
    this.name = 'RabbitFailure';
    this.code = code;
  }

  /** It takes no messages while its memory or its disk is full. */
  static full(): RabbitFailure {
    return new RabbitFailure('RABBITMQ_FULL', new Error('its memory or its disk is full'));
  }

  /** The error itself where nothing more is known of it. */
  static of(error: unknown): unknown {
    if (!(error instanceof Error) || error instanceof RabbitFailure) return error;
    const code = codes.find(([words]) => words.test(error.message))?.[1];
    return code === undefined ? error : new RabbitFailure(code, error);
  }
}

/**
 * RabbitMQ is not there yet, or is starting. A wrong password does not pass. A virtual host may: while RabbitMQ recovers,
 * it lets nobody into one, and the driver does not keep why.
 */
export function isPassing(error: unknown): boolean {
  if (error instanceof RabbitFailure) return error.code === 'RABBITMQ_VHOST';
  return isPassingFailure(error) || (error instanceof Error && /ETIMEDOUT|Socket closed abruptly/.test(error.message));
}

const codes: readonly (readonly [words: RegExp, code: string])[] = [
  [/in exclusive use/, 'RABBITMQ_IN_USE'],
  [/ACCESS[-_]REFUSED.*Login was refused/, 'RABBITMQ_LOGIN'],
  [/ACCESS[-_]REFUSED/, 'RABBITMQ_RIGHT'],
  [/^Expected ConnectionOpenOk; got <ConnectionClose/, 'RABBITMQ_VHOST'],
];
