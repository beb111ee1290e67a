// Every failure of an HTTP request as the API's error body. Without it the framework would answer with the raw text of
// whatever was thrown.

import { Elysia } from 'elysia';
import { RealtimeError } from '../protocol/realtime-error.ts';
import { errorResponse } from './request.ts';

export interface HttpErrorsOptions {
  /** Logs what nobody expected and turns it into `internal`. */
  readonly expected: (error: unknown) => RealtimeError;
  /** Lets a page of another origin that may call read what went wrong. */
  readonly headers: (request: Request) => Readonly<Record<string, string>>;
}

export function httpErrors({ expected, headers }: HttpErrorsOptions): Elysia {
  const app = new Elysia({ name: 'sobranie-http-errors' }).onError({ as: 'global' }, ({ code, error, request }) => {
    const answer = (told: RealtimeError, status?: number) => errorResponse(told, status, headers(request));
    if (code === 'NOT_FOUND') return answer(new RealtimeError('bad_request', 'There is nothing at this address.'), 404);
    // Nobody is there any more to read the answer: it is their affair, and no failure of ours.
    if (isBrokenOff(error)) return answer(new RealtimeError('bad_request', 'The request broke off.'));
    // What a parser of ours refuses comes wrapped.
    if (code === 'PARSE' && error.cause instanceof RealtimeError) return answer(error.cause);
    if (code === 'PARSE') return answer(new RealtimeError('bad_request', 'The body is not valid JSON.'));
    if (code === 'VALIDATION' || code === 'INVALID_COOKIE_SIGNATURE') return answer(validationError(request));
    return answer(expected(error));
  });
  return app as unknown as Elysia;
}

/** Who reads a body whose sender leaves, or is cut off for being slow, is told so by the runtime. */
function isBrokenOff(error: unknown): boolean {
  return error instanceof Error && error.name === 'AbortError';
}

/** The schema's own text names internals and echoes what was sent, so the answer says only where to look. */
function validationError(request: Request): RealtimeError {
  const type = request.headers.get('content-type') ?? '';
  if (request.method !== 'GET' && !/^application\/json\b/i.test(type)) {
    return new RealtimeError('bad_request', 'The body must be JSON, with content-type: application/json.');
  }
  return new RealtimeError('bad_request', 'A field of the request is missing or malformed; see /swagger.');
}
