// Who is in a channel, asked over HTTP: by a backend, or by a user who may.

import { Elysia } from 'elysia';
import type { Presence } from '../core/presence.ts';
import { limitOf, queryOf, requireChannel } from '../http/request.ts';
import { presenceLimitDefault, presenceLimitMax } from '../protocol/commands.ts';
import { presenceFrame } from '../protocol/frames.ts';
import type { ServerAccess } from './server-access.ts';

export interface PresenceRoutesOptions {
  readonly presence: Presence;
  readonly serverAccess: ServerAccess;
}

const limits = { min: 0, max: presenceLimitMax, standard: presenceLimitDefault };

export function presenceRoutes({ presence, serverAccess }: PresenceRoutesOptions): Elysia {
  const app = new Elysia({ name: 'sobranie-presence', prefix: '/realtime' }).get(
    '/channels/:channel/presence',
    async ({ request, params }) => {
      const channel = requireChannel(params.channel);
      await serverAccess.require(request, 'presence', [channel]);
      const list = await presence.list(channel, limitOf(queryOf(request), limits));
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
