// What a failure of the database, of Redis or of the network means, in plain words without addresses or names: anyone
// may read a health answer. Start-up adds what mends it. Each row is found by the code that the driver or the system
// gives, or by the first words of what Redis answered.

import { RealtimeError } from '../protocol/realtime-error.ts';
import { DeadlineError } from '../time/within.ts';

/** A failure whose message may be shown to anyone as it is. */
export class HealthFault extends Error {
  constructor(message: string, options?: { readonly cause?: unknown }) {
    super(message, options);
    this.name = 'HealthFault';
  }
}

const untrusted = 'its certificate is not trusted';
const withoutTls = 'it offers no TLS at that port';
/** The last word of what the TLS library says, which has no code. */
const noTls = 'WRONG_VERSION_NUMBER';

const causes: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'the connection is refused: nothing listens at that address',
  ECONNRESET: 'the connection was lost',
  EPIPE: 'the connection was lost',
  ETIMEDOUT: 'no answer from that address',
  EHOSTUNREACH: 'no network leads to that address',
  ENETUNREACH: 'no network leads to that address',
  ENOTFOUND: 'the host name is not known',
  EAI_AGAIN: 'the host name could not be looked up',
  ENOENT: 'the socket file is not there',
  // The PostgreSQL driver's own.
  CONNECT_TIMEOUT: 'no answer from that address',
  CONNECTION_CLOSED: 'the connection was lost',
  CONNECTION_DESTROYED: 'the connection was lost',
  CONNECTION_ENDED: 'the connection was closed',
  // Ours, by database/pooler.ts.
  POOLER_KEEPS_NO_SESSION: 'a pooler answers there that keeps no session for a client: LISTEN and locks would be lost',
  POOLER_KEEPS_NO_TRANSACTION: 'a pooler in statement mode answers there, which takes no transactions',
  // Ours, by database/same-database.ts.
  ANOTHER_DATABASE: 'this is another database than the one that DATABASE_URL_DIRECT leads to',
  // TLS.
  TLS_REFUSED: 'it offers no TLS',
  [noTls]: withoutTls,
  // By nats/failure.ts and kafka/failure.ts, whose drivers have no code for it.
  NO_TLS: withoutTls,
  TLS_CUT: 'it broke the connection off as TLS began: it may offer none at that port',
  DEPTH_ZERO_SELF_SIGNED_CERT: untrusted,
  SELF_SIGNED_CERT_IN_CHAIN: untrusted,
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: untrusted,
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: untrusted,
  CERT_HAS_EXPIRED: 'its certificate has expired',
  ERR_TLS_CERT_ALTNAME_INVALID: 'its certificate is for another host name',
  // PostgreSQL.
  '08P01': 'it broke the connection off',
  '25006': 'it takes no writes: it is a standby, or set to read only',
  '25P03': 'it ended a transaction that stood still',
  '28000': 'it does not let this user in',
  '28P01': 'the password is wrong',
  '3D000': 'the database does not exist',
  '3F000': 'the schema realtime is gone',
  '42704': 'it does not know what it was asked for',
  '42P01': 'a table of the schema realtime is gone',
  '42883': 'a function of the schema realtime is gone',
  '42501': 'a right is missing',
  '53100': 'its disk is full',
  '53200': 'it is out of memory',
  '53300': 'it has no room for another session',
  '55P03': 'another session holds a lock for too long',
  '55000': 'it takes no connections to this database',
  '57014': 'it cancelled the query',
  '57P01': 'it is shutting down',
  '57P02': 'it crashed and starts again',
  '57P03': 'it is starting up',
  '57P04': 'the database was dropped',
  '57P05': 'it ended a session that stood still',
  // Redis, by the first word of its answer.
  NOAUTH: 'it wants a password',
  WRONGPASS: 'the password or user name is wrong',
  NOPERM: 'a right is missing',
  LOADING: 'it is loading its data',
  MASTERDOWN: 'its master is away',
  CLUSTERDOWN: 'a part of the cluster is away',
  READONLY: 'it takes no writes: it is a replica',
  MISCONF: 'it takes no writes: it cannot save to its disk',
  OOM: 'it is out of memory',
  BUSY: 'a script keeps it busy',
  UNKILLABLE: 'a script keeps it busy',
  TRYAGAIN: 'a part of the cluster is being moved',
  NOREPLICAS: 'it takes no writes: too few replicas follow it',
  // NATS, by sync/nats/failure.ts.
  NATS_FULL: 'it has no room for more',
  // By nats/failure.ts.
  NATS_LOGIN: 'it does not let this user in',
  NATS_RIGHT: 'a right is missing',
  NATS_SILENT: 'no answer in time',
  NATS_NOBODY: 'its JetStream does not answer: it is off, is starting, or chooses a leader',
  NATS_AWAY: 'there is no connection to it now',
  // RabbitMQ, by rabbitmq/failure.ts.
  RABBITMQ_LOGIN: 'the password or user name is wrong',
  RABBITMQ_RIGHT: 'a right is missing',
  RABBITMQ_FULL: 'it takes no messages: its memory or its disk is full',
  RABBITMQ_IN_USE: 'another consumer reads the queue',
  RABBITMQ_VHOST: 'the virtual host does not exist, is not ready, or does not let this user in',
  // Kafka, by the names of its errors.
  SASL_AUTHENTICATION_FAILED: 'the password or user name is wrong',
  UNSUPPORTED_SASL_MECHANISM: 'it does not know this way to log in',
  TOPIC_AUTHORIZATION_FAILED: 'a right is missing',
  CLUSTER_AUTHORIZATION_FAILED: 'a right is missing',
};

/** Of the error itself or what caused it; undefined when it has none that this table knows. */
export function knownCode(error: unknown): string | undefined {
  if (!(error instanceof Error)) return undefined;
  const { code, message } = error as Error & { readonly code?: unknown };
  if (typeof code === 'string' && code in causes) return code;
  if (message.endsWith(noTls)) return noTls;
  const [word = ''] = message.split(' ', 1);
  if (/^[A-Z]{3,}$/.test(word) && word in causes) return word;
  return knownCode(error.cause);
}

/** What TLS or its absence may have to do with a failure. */
export type TlsTrouble = 'untrusted' | 'none there' | 'perhaps wanted';

const tlsTroubles: Readonly<Record<string, TlsTrouble>> = {
  [noTls]: 'none there',
  NO_TLS: 'none there',
  TLS_CUT: 'none there',
  // A server of TLS ends a connection that begins otherwise, and says nothing.
  ECONNRESET: 'perhaps wanted',
  EPIPE: 'perhaps wanted',
};

export function tlsTrouble(error: unknown): TlsTrouble | undefined {
  const code = knownCode(error);
  if (code === undefined) return undefined;
  return causes[code] === untrusted ? 'untrusted' : tlsTroubles[code];
}

/** So begins what the Redis driver says of an answer or a connection, which tells less than the failure before it. */
const sayings: readonly (readonly [beginning: string, cause: string])[] = [
  ['All sentinels are unreachable', 'none of the Sentinels names a master'],
  ['None of startup nodes is available', 'no node of the cluster answers'],
  ['Failed to refresh slots cache', 'no node of the cluster answers'],
  ['Command timed out', 'no answer in time'],
  ['Reached the max retries per request limit', 'the connection was lost'],
  ['Command aborted due to connection close', 'the connection was lost'],
  ['Connection is closed.', 'the connection was lost'],
  ["Stream isn't writeable", 'there is no connection to it now'],
  ["Cluster isn't ready", 'there is no connection to it now'],
];

/** Undefined when the error says nothing that may be shown. */
export function plainCause(error: unknown): string | undefined {
  return tellingCause(error) ?? symptom(error);
}

/** As `plainCause`; undefined as well where the error is only what another failure led to. */
export function tellingCause(error: unknown): string | undefined {
  for (let at: unknown = error; at instanceof Error; at = at.cause) if (at instanceof HealthFault) return at.message;
  const code = knownCode(error);
  if (code !== undefined) return causes[code];
  const isFull = error instanceof Error && /max number of clients/.test(error.message);
  return isFull ? 'it has no room for another client' : undefined;
}

function symptom(error: unknown): string | undefined {
  if (!(error instanceof Error)) return undefined;
  if (error instanceof DeadlineError) return 'no answer in time';
  // A part of this server is between two connections, and knows no more.
  const isBetween = error instanceof RealtimeError && error.code === 'unavailable' && error.cause === undefined;
  if (isBetween) return 'there is no connection to it now';
  return sayings.find(([beginning]) => error.message.startsWith(beginning))?.[1] ?? symptom(error.cause);
}
