// Routes match addresses as they were sent. The runtime's router does so. The framework's own router stands behind it,
// for addresses that the runtime's did not match, and sees them after `\` became `/` and dot segments were resolved:
// `/x\..\metrics` was `/metrics`, though a gateway that keeps `/metrics` inside had let it pass. Every route is known to
// the runtime's router, so whatever comes to the framework's is answered 404 here.

import { Elysia, type ElysiaConfig } from 'elysia';

export interface ExactPathsOptions extends ElysiaConfig<''> {
  /** Answers what no route matches. */
  readonly notFound: (request: Request) => Response;
}

export class ExactPaths extends Elysia {
  readonly #notFound: (request: Request) => Response;

  constructor({ notFound, ...config }: ExactPathsOptions) {
    super(config);
    this.#notFound = notFound;
  }

  /** The framework hands `fetch` to the runtime after each compilation. */
  override compile(): this {
    super.compile();
    const { fetch } = this;
    // Preflights have one route for all addresses, which the runtime's router does not know. They change nothing.
    const exact = (request: Request) => (request.method === 'OPTIONS' ? fetch(request) : this.#notFound(request));
    Object.defineProperty(this, 'fetch', { value: exact, configurable: true, writable: true });
    return this;
  }
}

/**
 * Whether the request's path, resolved, has as many segments as the route: a `\` or `..` in a parameter makes others. The
 * URL of a request of HTTP/1.0 without a host is its path, which the framework would cut where it expects one.
 */
export function isExact({ url }: Request, path: string, route: string): boolean {
  const resolved = url.startsWith('/') ? (url.split('?', 1)[0] ?? '') : path;
  return resolved.split('/').length === route.split('/').length;
}
