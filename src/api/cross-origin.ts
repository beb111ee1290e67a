// What pages of other origins may do with the API and the event streams: the answer to a browser that asks before it
// sends a request (the preflight), and the headers by which a page may read what the API answers.

import { Elysia, NotFoundError } from 'elysia';
import { answerHeaders } from '../http/answer-headers.ts';
import { isExact } from '../http/exact-paths.ts';
import type { Origins } from '../http/origins.ts';

const streamPath = '/realtime/events';
/** Seconds for which a browser remembers the answer. A change of ALLOWED_ORIGINS takes effect after this time. */
const preflightSeconds = 600;

const preflightHeaders: Readonly<Record<string, string>> = {
  'access-control-allow-methods': 'GET, HEAD, POST',
  'access-control-allow-headers': 'authorization, cache-control, content-type, idempotency-key, last-event-id',
  'access-control-max-age': String(preflightSeconds),
};

/** Answers OPTIONS under /realtime, always with 204: the headers say whether the page may go on. */
export function preflightRoutes(origins: Origins): Elysia {
  const app = new Elysia({ name: 'sobranie-preflight' }).options(
    '/realtime/*',
    ({ request, path }) => {
      const allowed = path === streamPath ? origins.headers(request) : origins.apiHeaders(request);
      const more = 'access-control-allow-origin' in allowed ? preflightHeaders : {};
      return new Response(null, { status: 204, headers: { ...answerHeaders, ...allowed, ...more } });
    },
    { detail: { hide: true } },
  );
  return app as unknown as Elysia;
}

const noStore = { 'cache-control': 'no-store' };

/**
 * For the API's routes: refuses pages of other origins before anything is done, and lets allowed ones read the answer.
 */
export function apiOrigins(origins: Origins): Elysia {
  const app = new Elysia({ name: 'sobranie-api-origins' }).onBeforeHandle(
    { as: 'scoped' },
    ({ request, path, route, set }) => {
      if (!isExact(request, path, route)) throw new NotFoundError();
      origins.checkCaller(request);
      Object.assign(set.headers, answerHeaders, noStore, origins.apiHeaders(request));
    },
  );
  return app;
}
