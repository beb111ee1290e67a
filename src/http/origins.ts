// Which pages may connect. Browsers name the origin of the page that asks, and send cookies along whichever page it is:
// without a check any site could open a connection in the name of its visitor.

import { RealtimeError } from '../protocol/realtime-error.ts';

export class Origins {
  readonly #allowed: ReadonlySet<string> | undefined;
  /** Somebody chose who may, be it everyone. */
  readonly #chosen: boolean;

  /** Undefined or `*` lets every page in, but then cookies count from this server's own pages alone. */
  constructor(allowed: readonly string[] | undefined) {
    this.#allowed = allowed === undefined || allowed.includes('*') ? undefined : new Set(allowed);
    this.#chosen = allowed !== undefined;
  }

  /** Throws `forbidden` for a page of another origin than the allowed ones. Programs name no origin and pass. */
  check(request: Request): void {
    const origin = originOf(request);
    if (origin === undefined || this.#allows(origin) || isOwn(request, origin)) return;
    throw new RealtimeError('forbidden', 'Pages of this origin may not connect.');
  }

  /** Whether the request's cookies speak for the user: not when a page of any site may have caused it. */
  trustsCookies(request: Request): boolean {
    const origin = originOf(request);
    // Not every request names the origin: an image's does not, yet browsers send cookies along and say whose it is.
    if (origin === undefined) return !/^(cross|same)-site$/.test(request.headers.get('sec-fetch-site') ?? '');
    return isOwn(request, origin) || this.#allowed?.has(origin) === true;
  }

  /**
   * Throws `forbidden` for an API call that a page of another origin made, unless that origin was chosen. A server
   * without an API key believes every caller, so any site could otherwise act through whoever visits it.
   */
  checkCaller(request: Request): void {
    const origin = originOf(request);
    // Behind a proxy that changes the host, the browser still knows its own page.
    if (origin === undefined || request.headers.get('sec-fetch-site') === 'same-origin') return;
    if (isOwn(request, origin) || (this.#chosen && this.#allows(origin))) return;
    throw new RealtimeError(
      'forbidden',
      'Pages of this origin may not call the API; ALLOWED_ORIGINS names those that may.',
    );
  }

  /** As `headers`, for the API: it writes, so no page of another origin may use it unless somebody chose so. */
  apiHeaders(request: Request): Record<string, string> {
    return this.#chosen ? this.headers(request) : {};
  }

  /** Lets pages of allowed origins read an answer. */
  headers(request: Request): Record<string, string> {
    const origin = originOf(request);
    if (origin === undefined) return {};
    if (this.#allowed === undefined) return { 'access-control-allow-origin': '*' };
    if (!this.#allowed.has(origin)) return { vary: 'origin' };
    return { 'access-control-allow-origin': origin, 'access-control-allow-credentials': 'true', vary: 'origin' };
  }

  #allows(origin: string): boolean {
    return this.#allowed === undefined || this.#allowed.has(origin);
  }
}

function originOf(request: Request): string | undefined {
  return request.headers.get('origin')?.toLowerCase();
}

/**
 * A proxy may speak TLS before this server, so the host decides and not the scheme. A proxy may also name the scheme's
 * own port, which browsers leave out.
 */
function isOwn(request: Request, origin: string): boolean {
  const host = request.headers.get('host')?.toLowerCase();
  if (host === undefined) return false;
  return origin === `http://${host.replace(/:80$/, '')}` || origin === `https://${host.replace(/:443$/, '')}`;
}
