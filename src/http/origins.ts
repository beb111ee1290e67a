// What pages of other origins may do: connect, call the API, and read what it answers. Browsers name the origin of the page,
// and send this server's cookies whichever page it is. Without a check any site could act in the name of its visitor.

import { Elysia, NotFoundError } from 'elysia';
import { RealtimeError } from '../protocol/realtime-error.ts';
import { answerHeaders } from './answer-headers.ts';
import { isExact } from './exact-paths.ts';

const streamPath = '/realtime/events';
/** Seconds for which a browser remembers the answer. A change of ALLOWED_ORIGINS takes effect after this time. */
const preflightSeconds = 600;

const preflightHeaders: Readonly<Record<string, string>> = {
  'access-control-allow-methods': 'GET, HEAD, POST',
  'access-control-allow-headers': 'authorization, cache-control, content-type, idempotency-key, last-event-id',
  'access-control-max-age': String(preflightSeconds),
};
/** When to come back: without this a page of another origin may not read it. */
const exposed = { 'access-control-expose-headers': 'retry-after' };

export class Origins {
  readonly #allowed: ReadonlySet<string> | undefined;
  /** ALLOWED_ORIGINS is set, even if to `*`. */
  readonly #chosen: boolean;

  /** Undefined or `*` allows every page, but then only this server's own pages may use cookies. */
  constructor(allowed: readonly string[] | undefined) {
    this.#allowed = allowed === undefined || allowed.includes('*') ? undefined : new Set(allowed);
    this.#chosen = allowed !== undefined;
  }

  /** Throws `forbidden` for a page whose origin is not allowed. Programs name no origin and pass. */
  check(request: Request): void {
    const origin = originOf(request);
    if (origin === undefined || this.#allows(origin) || isOwn(request, origin)) return;
    throw new RealtimeError('forbidden', 'Pages of this origin may not connect.');
  }

  /** Whether the request's cookies count. They do not if a page of any site may have caused the request. */
  trustsCookies(request: Request): boolean {
    const origin = originOf(request);
    // The request of an image names no origin, yet browsers send cookies with it. This header says whose page it is.
    if (origin === undefined) return !/^(cross|same)-site$/.test(request.headers.get('sec-fetch-site') ?? '');
    return isOwn(request, origin) || this.#allowed?.has(origin) === true;
  }

  /**
   * Throws `forbidden` for an API call by a page of another origin, unless ALLOWED_ORIGINS allows it. A server without
   * an API key believes every caller, so any site could otherwise act through its visitors.
   */
  checkCaller(request: Request): void {
    const origin = originOf(request);
    // Where a proxy changes the host, the browser still tells that the page is this server's own.
    if (origin === undefined || request.headers.get('sec-fetch-site') === 'same-origin') return;
    if (isOwn(request, origin) || (this.#chosen && this.#allows(origin))) return;
    throw new RealtimeError(
      'forbidden',
      'Pages of this origin may not call the API; ALLOWED_ORIGINS names those that may.',
    );
  }

  /** As `headers`, for the API. It writes, so pages of other origins need ALLOWED_ORIGINS to be set. */
  apiHeaders(request: Request): Record<string, string> {
    return this.#chosen ? this.headers(request) : {};
  }

  /** Headers with which pages of allowed origins may read an answer. */
  headers(request: Request): Record<string, string> {
    const origin = originOf(request);
    if (origin === undefined) return {};
    if (this.#allowed === undefined) return { ...exposed, 'access-control-allow-origin': '*' };
    if (!this.#allowed.has(origin)) return { vary: 'origin' };
    const allowed = { 'access-control-allow-origin': origin, 'access-control-allow-credentials': 'true' };
    return { ...exposed, ...allowed, vary: 'origin' };
  }

  #allows(origin: string): boolean {
    return this.#allowed === undefined || this.#allowed.has(origin);
  }
}

export function originOf(request: Request): string | undefined {
  return request.headers.get('origin')?.toLowerCase();
}

/**
 * Compares hosts and not schemes: a proxy in front may speak TLS. A proxy may also add the scheme's standard port,
 * which browsers leave out.
 */
export function isOwn(request: Request, origin: string): boolean {
  const host = request.headers.get('host')?.toLowerCase();
  if (host === undefined) return false;
  return origin === `http://${host.replace(/:80$/, '')}` || origin === `https://${host.replace(/:443$/, '')}`;
}

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
