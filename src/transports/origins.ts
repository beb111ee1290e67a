// Which pages may connect. Browsers name the origin of the page that asks, and send cookies along whichever page it is:
// without a check any site could open a connection in the name of its visitor.

import { RealtimeError } from '../protocol/realtime-error.ts';

export class Origins {
  readonly #allowed: ReadonlySet<string> | undefined;

  /** Undefined or `*` lets every page in, but then cookies count from this server's own pages alone. */
  constructor(allowed: readonly string[] | undefined) {
    this.#allowed = allowed === undefined || allowed.includes('*') ? undefined : new Set(allowed);
  }

  /** Throws `forbidden` for a page of another origin than the allowed ones. Programs name no origin and pass. */
  check(request: Request): void {
    const origin = originOf(request);
    if (origin === undefined || this.#allowed === undefined || this.#allowed.has(origin)) return;
    if (isOwn(request, origin)) return;
    throw new RealtimeError('forbidden', 'Pages of this origin may not connect.');
  }

  /** Whether the request's cookies speak for the user: not when a page of any site may have caused it. */
  trustsCookies(request: Request): boolean {
    const origin = originOf(request);
    return origin === undefined || isOwn(request, origin) || this.#allowed?.has(origin) === true;
  }

  /** Lets pages of allowed origins read an answer. */
  headers(request: Request): Record<string, string> {
    const origin = originOf(request);
    if (origin === undefined) return {};
    if (this.#allowed === undefined) return { 'access-control-allow-origin': '*' };
    if (!this.#allowed.has(origin)) return { vary: 'origin' };
    return { 'access-control-allow-origin': origin, 'access-control-allow-credentials': 'true', vary: 'origin' };
  }
}

function originOf(request: Request): string | undefined {
  return request.headers.get('origin')?.toLowerCase();
}

/** A proxy may speak TLS before this server, so the host decides and not the scheme. */
function isOwn(request: Request, origin: string): boolean {
  const host = request.headers.get('host')?.toLowerCase();
  return host !== undefined && (origin === `http://${host}` || origin === `https://${host}`);
}
