// What the driver rejects with, in the words of the sync layer. The driver's errors carry no code, by which a failure of
// the network could be told apart from a publication that can never be taken.

import { JetStreamApiError } from '@nats-io/jetstream';
import { errors } from '@nats-io/transport-node';
import { NatsFailure } from '../../nats/failure.ts';
import { RealtimeError } from '../../protocol/realtime-error.ts';

const { ConnectionError, TimeoutError, NoRespondersError, RequestError } = errors;

/** What a stream answers in place of a number. */
export interface StreamError {
  readonly err_code?: number;
  readonly description?: string;
}

/** The limits of the server, or its disk. */
const fullCodes = new Set([10_023, 10_028, 10_047, 10_077]);

/** A stream did not take a message. */
export class NatsRefusal extends Error {
  /** There is no room, for this message or for any. */
  readonly isFull: boolean;

  constructor({ err_code: code = 0, description }: StreamError) {
    super(description);
    this.name = 'NatsRefusal';
    this.isFull = fullCodes.has(code);
  }
}

/** The same answer, but a failure becomes `unavailable`. Errors that clients may see pass as they are. */
export async function available<Value>(answer: Promise<Value>): Promise<Value> {
  try {
    return await answer;
  } catch (error) {
    throw unavailable(error);
  }
}

export function unavailable(error: unknown): RealtimeError {
  if (error instanceof RealtimeError) return error;
  const isFull = error instanceof NatsRefusal && error.isFull;
  return new RealtimeError('unavailable', undefined, {
    cause: new NatsFailure(error, isFull ? 'NATS_FULL' : undefined),
  });
}

/** NATS is not there yet, or a cluster has chosen no leader yet, or is not whole. A wrong password does not pass. */
export function isPassing(error: unknown): boolean {
  return (
    error instanceof ConnectionError ||
    error instanceof TimeoutError ||
    isNobodyThere(error) ||
    // One code says this, and that there are too few servers, which passes never.
    (error instanceof JetStreamApiError && error.message.includes('peer offline'))
  );
}

/** Nobody answers to the subject; the driver wraps that where it was a request. */
export function isNobodyThere(error: unknown): boolean {
  return error instanceof NoRespondersError || (error instanceof RequestError && error.isNoResponders());
}
