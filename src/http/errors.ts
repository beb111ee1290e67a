// How failed HTTP requests are answered: with the API's error body. Without this the framework would send the raw text of
// whatever was thrown.

import { Elysia } from 'elysia';
import { RealtimeError } from '../protocol/realtime-error.ts';
import { answerHeaders } from './answer-headers.ts';
import { endingHeaders, isJson } from './request.ts';

export interface HttpErrorsOptions {
  /** Counts expected errors and answers them as they are; logs any other and answers `internal`. */
  readonly expected: (error: unknown) => RealtimeError;
  /** Headers with which pages of allowed origins may read the answer. */
  readonly headers: (request: Request) => Readonly<Record<string, string>>;
}

/** After which another try may find a place where a limit was reached. */
const fullSeconds = 10;

export function httpErrors({ expected, headers }: HttpErrorsOptions): Elysia {
  const app = new Elysia({ name: 'sobranie-http-errors' }).onError({ as: 'global' }, ({ code, error, request }) => {
    const answer = (failure: RealtimeError) => {
      return errorResponse(failure, failure.status, { ...headers(request), ...endingHeaders(request, failure) });
    };
    if (code === 'NOT_FOUND') return refusedAddress([], headers(request));
    // The sender is gone and reads no answer. That is no failure of this server.
    if (isBrokenOff(error)) return answer(new RealtimeError('bad_request', 'The request broke off.'));
    return answer(expected(causeOf(code, error, request)));
  });
  return app as unknown as Elysia;
}

/** What our own code threw, or what the framework's refusal means. */
function causeOf(code: string | number, error: unknown, request: Request): unknown {
  if (code === 'PARSE') {
    // What our own parsers throw arrives wrapped.
    const cause = error instanceof Error ? error.cause : undefined;
    return cause instanceof RealtimeError ? cause : new RealtimeError('bad_request', 'The body is not valid JSON.');
  }
  return code === 'VALIDATION' || code === 'INVALID_COOKIE_SIGNATURE' ? validationError(request) : error;
}

/** The runtime throws this to the reader of a body whose sender left, or was cut off for being slow. */
function isBrokenOff(error: unknown): boolean {
  return error instanceof Error && (error.name === 'AbortError' || isBrokenOff(error.cause));
}

/** The schema's own text names internals and repeats what was sent, so the answer says only where to look. */
function validationError(request: Request): RealtimeError {
  if (request.method !== 'GET' && !isJson(request)) {
    return new RealtimeError('bad_request', 'The body must be JSON, with content-type: application/json.');
  }
  return new RealtimeError('bad_request', 'A field of the request is missing or malformed; see /swagger.');
}

/** 404, or 405 where the address takes other methods than that of the request. */
export function refusedAddress(methods: readonly string[], headers: Readonly<Record<string, string>>): Response {
  if (methods.length === 0) {
    return errorResponse(new RealtimeError('bad_request', 'There is nothing at this address.'), 404, headers);
  }
  const error = new RealtimeError('bad_request', `This address takes ${methods.join(' and ')} only.`);
  return errorResponse(error, 405, { ...headers, allow: methods.join(', ') });
}

/** An expected error as an HTTP answer. */
export function errorResponse(
  error: RealtimeError,
  status: number = error.status,
  more: Readonly<Record<string, string>> = {},
): Response {
  const headers = new Headers({
    ...answerHeaders,
    ...more,
    'content-type': 'application/json; charset=utf-8',
    'cache-control': 'no-store',
  });
  // The standard asks for it. Browsers show no dialog for this scheme.
  if (status === 401) headers.set('www-authenticate', 'Bearer');
  // Also where the error is none that a client repeats by itself: a place in a full channel may be free again by then.
  if (error.retryable || status === 429) {
    headers.set('retry-after', String(Math.ceil(error.retryAfter ?? (error.retryable ? 1 : fullSeconds))));
  }
  return new Response(JSON.stringify({ error: error.body() }), { status, headers });
}
