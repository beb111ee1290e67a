// What the driver of NATS rejects with, told with one code. It gives none itself, so they are read from its errors, once and
// here.

import { errors } from '@nats-io/transport-node';

const { AuthorizationError, ClosedConnectionError, ConnectionError, DrainingConnectionError, NoRespondersError } =
  errors;
const { PermissionViolationError, TimeoutError, UserAuthenticationExpiredError } = errors;

/** `code` says what is the matter: see app/causes.ts, or `NATS` where nothing is known; `cause` is the driver's error. */
export class NatsFailure extends Error {
  readonly code: string;

  constructor(error: unknown, code = codeOf(error)) {
    super(error instanceof Error ? `${error.name}: ${error.message}` : String(error), { cause: error });
    this.name = 'NatsFailure';
    this.code = code ?? 'NATS';
  }
}

/** The error as it is, but a `NatsFailure` where NATS will not let this client in before something is mended. */
export function accessFailure(error: unknown): unknown {
  const code = codeOf(error);
  return code === 'NATS_LOGIN' || code === 'NO_TLS' ? new NatsFailure(error, code) : error;
}

/** Of the error, or of what caused it. */
function codeOf(error: unknown): string | undefined {
  if (!(error instanceof Error)) return undefined;
  if (error instanceof AuthorizationError || error instanceof UserAuthenticationExpiredError) return 'NATS_LOGIN';
  if (error instanceof PermissionViolationError) return 'NATS_RIGHT';
  if (error instanceof TimeoutError) return 'NATS_SILENT';
  if (error instanceof NoRespondersError) return 'NATS_NOBODY';
  if (error instanceof ConnectionError && error.message.includes("not support 'tls'")) return 'NO_TLS';
  const isAway = [ClosedConnectionError, DrainingConnectionError, ConnectionError].some(
    (kind) => error instanceof kind,
  );
  return codeOf(error.cause) ?? (isAway ? 'NATS_AWAY' : undefined);
}
