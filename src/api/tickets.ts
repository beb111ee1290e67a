// `POST /realtime/ticket`: a ticket for the user of a token, or for a user whom a backend vouches for with the API key.

import { Elysia } from 'elysia';
import type { Authenticate } from '../core/access.ts';
import { RealtimeError } from '../protocol/realtime-error.ts';
import type { Origins } from '../http/origins.ts';
import { readOptionalJsonBody, tokenOf } from '../http/request.ts';
import type { ServerAccess } from './server-access.ts';

interface Issued {
  readonly ticket: string;
  readonly expires: number;
}

type Body = Readonly<Record<string, unknown>>;

/** Throws the error that the caller gets. */
export interface TicketIssuer {
  issue(claims: Readonly<Record<string, unknown>>): Promise<Issued>;
  /** Reads `user`, `channels`, `claims` and `expires` of the body. */
  vouch(body: Body): Promise<Issued>;
}

export interface TicketOptions {
  readonly tickets: TicketIssuer;
  readonly serverAccess: ServerAccess;
  readonly origins: Origins;
  /** Accepts tokens and no tickets: a ticket for a ticket would never expire. Undefined where no token is checked. */
  readonly tokens: Authenticate | undefined;
  readonly isClosed: () => boolean;
}

/** Claims as large as a token's, and the members around them. */
const bodyBytesMax = 16 << 10;
const bodyLimit = { bytesMax: bodyBytesMax, tooLarge: `The body is larger than ${bodyBytesMax} bytes.` };
const vouchedMembers = ['channels', 'claims', 'expires'];
const emptyQuery = new URLSearchParams();

export function ticketRoutes(options: TicketOptions): Elysia {
  const app = new Elysia({ name: 'sobranie-tickets', prefix: '/realtime' }).post(
    '/ticket',
    async ({ request, set }) => {
      if (options.isClosed()) throw new RealtimeError('shutting_down');
      const { members: body } = await readOptionalJsonBody(request, bodyLimit);
      set.headers['cache-control'] = 'no-store';
      if (body['user'] === undefined) return options.tickets.issue(await ownClaims(request, body, options));
      options.serverAccess.requireServer(request);
      return options.tickets.vouch(body);
    },
    {
      parse: 'none',
      detail: {
        summary: 'A ticket that opens one connection in place of a token',
        description:
          'With a user’s token and no body: for that user. With the API key: {user, channels?, claims?, expires?}, a' +
          ' session that the backend vouches for. Answers {ticket, expires}; it stands where a token may, once.',
        tags: ['api'],
      },
    },
  );
  return app as unknown as Elysia;
}

async function ownClaims(
  request: Request,
  body: Body,
  { origins, tokens, serverAccess }: TicketOptions,
): Promise<Readonly<Record<string, unknown>>> {
  if (vouchedMembers.some((name) => body[name] !== undefined)) {
    throw new RealtimeError('bad_request', '"channels", "claims" and "expires" need "user", and the API key.');
  }
  if (tokens === undefined) {
    throw new RealtimeError('bad_request', 'This server checks no tokens: say "user", with the API key.');
  }
  if (serverAccess.holdsApiKey(request)) {
    throw new RealtimeError('bad_request', 'With the API key say whose ticket it is: "user".');
  }
  const token = tokenOf(request, emptyQuery, origins.trustsCookies(request));
  if (token === undefined) {
    throw new RealtimeError('unauthorized', 'A ticket takes a user’s token, or "user" with the API key.');
  }
  return (await serverAccess.identify(request, token, tokens)).claims ?? {};
}
