// Users and single connections over all nodes, for backends: who is connected, and where; subscribing them; sending to
// one of them.

import { Elysia } from 'elysia';
import { isConnectionId } from '../protocol/commands.ts';
import { directFrame } from '../protocol/frames.ts';
import { memberText, singleLine } from '../protocol/json-text.ts';
import { RealtimeError } from '../protocol/realtime-error.ts';
import { isUser, userShape } from '../protocol/user.ts';
import { refuseControl, type Cluster } from '../core/cluster.ts';
import type { Hub } from '../core/hub.ts';
import { readJsonBody, requireChannel } from '../http/request.ts';
import type { Clock } from '../time/clock.ts';
import { namesOf } from './incomplete.ts';
import type { ServerAccess } from './server-access.ts';

export interface UserRoutesOptions {
  readonly hub: Hub;
  readonly cluster: Cluster;
  readonly serverAccess: ServerAccess;
  readonly messageBytesMax: number;
  readonly clock: Clock;
}

/** For everything but data. */
const bodyBytesMax = 4 << 10;
const bodyLimit = { bytesMax: bodyBytesMax, tooLarge: `The body is larger than ${bodyBytesMax} bytes.` };
/** Bytes for what stands around the data. */
const envelopeBytes = 1 << 10;

export function userRoutes(options: UserRoutesOptions): Elysia {
  const { hub, cluster, serverAccess, messageBytesMax, clock } = options;
  // The bodies are read by the handlers, after the caller was looked at.
  const parse = (): object => ({});
  const app = new Elysia({ name: 'sobranie-users', prefix: '/realtime' })
    .get(
      '/users/:user',
      async ({ request, params }) => {
        serverAccess.requireServer(request);
        const user = requireUser(params.user);
        const { value: connections, incomplete } = await cluster.userConnections(user);
        return { user, online: connections.length > 0, connections, ...namesOf(incomplete) };
      },
      {
        detail: {
          summary: 'Whether a user is online, and each connection, over all nodes',
          description: 'incomplete: the nodes that did not answer, or not in full, if there are any.',
          tags: ['api'],
        },
      },
    )
    .post(
      '/users/:user/subscribe',
      async ({ request, params }) => {
        serverAccess.requireServer(request);
        const [user, channel] = [requireUser(params.user), await channelOf(request)];
        const { value: connections, incomplete } = await cluster.subscribe(user, channel);
        return { user, channel, connections, ...namesOf(incomplete) };
      },
      {
        parse,
        detail: {
          summary: 'Subscribe every WebSocket of a user, on all nodes',
          description: 'Body: {channel}. Rules are not asked. Answers how many are subscribed.',
          tags: ['api'],
        },
      },
    )
    .post(
      '/users/:user/unsubscribe',
      async ({ request, params }) => {
        serverAccess.requireServer(request);
        const [user, channel] = [requireUser(params.user), await channelOf(request)];
        const { value: connections, incomplete } = await cluster.unsubscribe(user, channel);
        return { user, channel, connections, ...namesOf(incomplete) };
      },
      {
        parse,
        detail: {
          summary: 'End a user’s subscriptions to a channel, on all nodes',
          description: 'Body: {channel}. Each connection gets `unsubscribed`. Answers how many there were.',
          tags: ['api'],
        },
      },
    )
    .post(
      '/connections/:connection/send',
      async ({ request, params: { connection } }) => {
        serverAccess.requireServer(request);
        if (!isConnectionId(connection)) throw new RealtimeError('bad_request', 'This is no id of a connection.');
        const data = await dataOf(request, messageBytesMax);
        hub.requireSize(data);
        const frame = directFrame({ channel: undefined, data, at: clock.now() });
        if (await cluster.send(connection, undefined, frame)) return { connection };
        throw new RealtimeError('not_subscribed', 'There is no such connection.', { status: 404 });
      },
      {
        parse,
        detail: {
          summary: 'Send a message to one connection, on whichever node it is',
          description: 'Body: {data}. Answers 404 when there is no such connection.',
          tags: ['api'],
        },
      },
    );
  return app as unknown as Elysia;
}

function requireUser(user: string): string {
  if (!isUser(user)) throw new RealtimeError('bad_request', `The user is not ${userShape}.`);
  return user;
}

async function channelOf(request: Request): Promise<string> {
  const { members } = await readJsonBody(request, bodyLimit);
  const channel = requireChannel(members['channel']);
  refuseControl(channel);
  return channel;
}

/** As text, which goes out as it came in: printing it again would round large numbers. */
async function dataOf(request: Request, dataBytesMax: number): Promise<string> {
  const tooLarge = `The data is larger than ${dataBytesMax} bytes.`;
  const { text } = await readJsonBody(request, { bytesMax: dataBytesMax + envelopeBytes, tooLarge });
  const data = memberText(text, 'data');
  if (data === undefined) throw new RealtimeError('bad_request', '"data" is missing.');
  return singleLine(data);
}
