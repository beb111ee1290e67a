// Who is in a channel, asked over HTTP: by a backend, or by a user who may.

import { Elysia } from 'elysia';
import type { Presence } from '../core/presence.ts';
import { queryOf, requireChannel } from '../http/request.ts';
import { isPresenceLimit, presenceLimitDefault, presenceLimitMax } from '../protocol/commands.ts';
import { presenceFrame } from '../protocol/frames.ts';
import { RealtimeError } from '../protocol/realtime-error.ts';
import type { ServerAccess } from './server-access.ts';

export interface PresenceRoutesOptions {
  readonly presence: Presence;
  readonly serverAccess: ServerAccess;
}

export function presenceRoutes({ presence, serverAccess }: PresenceRoutesOptions): Elysia {
  const app = new Elysia({ name: 'sobranie-presence', prefix: '/realtime' }).get(
    '/channels/:channel/presence',
    async ({ request, params }) => {
      const channel = requireChannel(params.channel);
      await serverAccess.require(request, 'presence', [channel]);
      const list = await presence.list(channel, limitOf(queryOf(request)));
      return new Response(presenceFrame(undefined, channel, list), {
        headers: { 'content-type': 'application/json; charset=utf-8' },
      });
    },
    {
      detail: {
        summary: 'The members of a channel, over all nodes',
        description: `Query: limit, 0 to ${presenceLimitMax}; ${presenceLimitDefault} unless given.`,
        tags: ['api'],
      },
    },
  );
  return app as unknown as Elysia;
}

function limitOf(query: URLSearchParams): number {
  const text = query.get('limit');
  if (text === null || text === '') return presenceLimitDefault;
  const limit = Number(text);
  if (isPresenceLimit(limit)) return limit;
  throw new RealtimeError('bad_request', `"limit" is a whole number from 0 to ${presenceLimitMax}.`);
}
