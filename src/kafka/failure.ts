// What the driver rejects with, told in one error with one code. The driver hides the reason in lists inside of lists, and
// gives most of them the same code.

import { isPassingFailure } from '../time/patiently.ts';

/** `cause` is the one reason. `code` is the system's (`ECONNREFUSED`), the name of Kafka's own error (`TOPIC_AUTHORIZATION_FAILED`), `TLS_CUT`, or `KAFKA`. */
export class KafkaFailure extends Error {
  readonly code: string;
  /** Kafka itself says that another try may do. */
  readonly mayPass: boolean;

  constructor(error: unknown, doing: string) {
    const all = [...nested(error)];
    const [code, told] = reasonOf(all);
    super(`${doing}: ${told instanceof Error ? told.message : String(told)} (${code})`, { cause: told });
    this.name = 'KafkaFailure';
    this.code = code;
    this.mayPass =
      !lasting.has(code) && all.some((each) => isPassingFailure(each) || isRetryable(each) || passing.has(code));
  }
}

/** Of a batch, for its size. The connection is well. */
export function isTooLarge({ code }: KafkaFailure): boolean {
  return code === 'MESSAGE_TOO_LARGE' || code === 'RECORD_LIST_TOO_LARGE';
}

/** Kafka is not there yet, is starting, or chooses a leader. A wrong password does not pass. */
export function isPassing(error: unknown): boolean {
  return error instanceof KafkaFailure ? error.mayPass : isPassingFailure(error);
}

interface Fields {
  readonly code?: unknown;
  readonly apiId?: unknown;
  readonly canRetry?: unknown;
}

const passing = new Set([
  ...['ECONNRESET', 'ETIMEDOUT', 'LEADER_NOT_AVAILABLE', 'NOT_LEADER_OR_FOLLOWER', 'UNKNOWN_TOPIC_OR_PARTITION'],
  ...['NOT_CONTROLLER', 'REQUEST_TIMED_OUT', 'BROKER_NOT_AVAILABLE', 'INVALID_REPLICATION_FACTOR', 'UNKNOWN_TOPIC_ID'],
]);
const lasting = new Set([
  ...['SASL_AUTHENTICATION_FAILED', 'UNSUPPORTED_SASL_MECHANISM', 'TOPIC_AUTHORIZATION_FAILED'],
  ...['CLUSTER_AUTHORIZATION_FAILED', 'POLICY_VIOLATION', 'INVALID_CONFIG'],
]);

/** Kafka's own answer, which it may give differently later. The driver says the same of all failures of a network. */
function isRetryable(error: unknown): boolean {
  const { apiId, canRetry } = error as Fields;
  return typeof apiId === 'string' && canRetry === true;
}

/** The first that says most: Kafka's own answer, then the system's, then what the driver made of it. */
function reasonOf(errors: readonly unknown[]): readonly [code: string, error: unknown] {
  for (const error of errors) {
    const { apiId } = error as Fields;
    if (typeof apiId === 'string') return [apiId, error];
  }
  const cut = errors.find((error) => error instanceof Error && error.message.includes(tlsCutWords));
  if (cut !== undefined) return ['TLS_CUT', cut];
  for (const error of errors) {
    const { code } = error as Fields;
    if (typeof code === 'string' && !code.startsWith('PLT_KFK_')) return [code, error];
  }
  for (const error of errors) {
    if (!(error instanceof Error)) continue;
    const known = driverCodes[String((error as Fields).code)];
    if (known !== undefined) return [known, error];
  }
  return ['KAFKA', errors.at(-1)];
}

/** A port without TLS takes its beginning for a request of a strange length, and hangs up. */
const tlsCutWords = 'before secure TLS connection was established';

const driverCodes: Readonly<Record<string, string>> = {
  PLT_KFK_AUTHENTICATION: 'SASL_AUTHENTICATION_FAILED',
  PLT_KFK_TIMEOUT: 'ETIMEDOUT',
  PLT_KFK_NETWORK: 'ECONNRESET',
};

/** The error, what it lists, and what caused it. */
function* nested(error: unknown): Generator {
  if (error === undefined || error === null) return;
  yield error;
  if (error instanceof AggregateError) for (const each of error.errors) yield* nested(each);
  if (error instanceof Error) yield* nested(error.cause);
}
