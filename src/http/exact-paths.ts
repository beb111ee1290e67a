// Routes match addresses as they were sent. The runtime's router does so. The framework's own router stands behind it,
// for addresses that the runtime's did not match, and sees them after `\` became `/` and dot segments were resolved:
// `/x\..\metrics` was `/metrics`, though a gateway that keeps `/metrics` inside had let it pass. Every route is known to
// the runtime's router, so whatever comes to the framework's is refused here: with 405 if the address takes other
// methods, else with 404.

import { Elysia, type ElysiaConfig } from 'elysia';

export interface ExactPathsOptions extends ElysiaConfig<''> {
  /** Answers what no route matches. `methods` are those that the address takes; none if there is no such address. */
  readonly refuse: (request: Request, methods: readonly string[]) => Response;
}

/** Preflights have one route for all addresses, which the runtime's router does not know. They change nothing. */
const preflights = '/realtime/';

export class ExactPaths extends Elysia {
  readonly #refuse: ExactPathsOptions['refuse'];

  constructor({ refuse, ...config }: ExactPathsOptions) {
    super(config);
    this.#refuse = refuse;
  }

  /** The framework hands `fetch` to the runtime after each compilation. */
  override compile(): this {
    super.compile();
    const { fetch } = this;
    const exact = (request: Request) => {
      const path = pathOf(request.url);
      if (request.method === 'OPTIONS' && path.startsWith(preflights)) return fetch(request);
      const methods = this.#methodsAt(path);
      // A method that is among them failed by its path: it was sent in another form.
      return this.#refuse(request, methods.includes(request.method) ? [] : methods);
    };
    Object.defineProperty(this, 'fetch', { value: exact, configurable: true, writable: true });
    return this;
  }

  #methodsAt(path: string): readonly string[] {
    const methods = this.routes.filter((route) => isAt(path, route.path)).map(({ method }) => method);
    return [...new Set(methods.flatMap((method) => (method === 'GET' ? ['GET', 'HEAD'] : [method])))]
      .filter((method) => method !== 'OPTIONS')
      .toSorted();
  }
}

/** Whether the route's path, with its parameters, stands for this one. */
function isAt(path: string, route: string): boolean {
  const [parts, wanted] = [path.split('/'), route.split('/')];
  if (parts.length !== wanted.length) return false;
  return wanted.every((part, index) => (part.startsWith(':') ? parts[index] !== '' : parts[index] === part));
}

/**
 * Whether the request's path, resolved, has as many segments as the route: a `\` or `..` in a parameter makes others. The
 * URL of a request of HTTP/1.0 without a host is its path, which the framework would cut where it expects one.
 */
export function isExact({ url }: Request, path: string, route: string): boolean {
  const resolved = url.startsWith('/') ? pathOf(url) : path;
  return resolved.split('/').length === route.split('/').length;
}

/** Without query and fragment. The URL of a request of HTTP/1.0 without a host begins with it. */
function pathOf(url: string): string {
  const start = url.startsWith('/') ? 0 : url.indexOf('/', url.indexOf('//') + 2);
  return url.slice(start).split(/[?#]/, 1)[0] ?? '';
}
