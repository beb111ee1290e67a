// The HTTP API for backends: publish, list channels, read history, disconnect users. Translates requests into calls of
// the hub and of the cluster, and decides nothing.

import { Elysia, t } from 'elysia';
import { anonymous, keyOf } from '../core/access.ts';
import type { Cluster } from '../core/cluster.ts';
import { backendAccount } from '../core/history-reads.ts';
import type { Hub } from '../core/hub.ts';
import type { Snapshots } from '../core/snapshot.ts';
import {
  beforeShape,
  historyLimitDefault,
  historyLimitMax,
  isBefore,
  isIdempotencyKey,
  keyLengthMax,
  keyShape,
} from '../protocol/commands.ts';
import { historyFrame, olderFrame } from '../protocol/frames.ts';
import { memberText, singleLine } from '../protocol/json-text.ts';
import { isPosition, type Position } from '../protocol/position.ts';
import { channelPart, isServerChannel } from '../protocol/channel.ts';
import { RealtimeError } from '../protocol/realtime-error.ts';
import { isUser, userShape } from '../protocol/user.ts';
import { headerText, limitOf, queryOf, readJsonBody, requireChannel, wholeNumberOf } from '../http/request.ts';
import { namesOf } from './incomplete.ts';
import type { ServerAccess } from './server-access.ts';

export interface ApiOptions {
  readonly hub: Hub;
  readonly snapshots: Snapshots;
  readonly messageBytesMax: number;
  readonly cluster: Cluster;
  readonly serverAccess: ServerAccess;
  /** From then on publishing answers `shutting_down`: the publisher should reach another node. */
  readonly isClosed: () => boolean;
  /** The caller's span, as a W3C `traceparent`; absent where nothing is traced. */
  readonly traceOf?: ((request: Request) => string | undefined) | undefined;
}

export const publishChannelsMax = 100;
const historyLimits = { min: 1, max: historyLimitMax, standard: historyLimitDefault };
/** Bytes for what stands around the data: names, keys, punctuation. */
const envelopeBytes = 32 << 10;

const publishBody = t.Object(
  {
    channel: t.Optional(t.String({ description: 'The channel to publish to.' })),
    channels: t.Optional(
      t.Array(t.String(), { minItems: 1, maxItems: publishChannelsMax, description: 'Instead of channel: several.' }),
    ),
    data: t.Any({ description: 'Any JSON.' }),
    key: t.Optional(
      // Its length is checked apart: the schema would count otherwise.
      t.String({ description: `Idempotency key, 1 to ${keyLengthMax} characters; as the header Idempotency-Key.` }),
    ),
  },
  { additionalProperties: true },
);

const notifyBody = t.Object(
  { data: publishBody.properties.data, key: publishBody.properties.key },
  { additionalProperties: true },
);

interface Published {
  readonly channel: string;
  readonly epoch?: string;
  readonly offset?: number;
}

export function apiRoutes(options: ApiOptions): Elysia {
  const { hub, snapshots, messageBytesMax, cluster, serverAccess, isClosed, traceOf } = options;
  const app = new Elysia({ name: 'sobranie-api', prefix: '/realtime' })
    .post(
      '/publish',
      async ({ request, body }) => {
        if (isClosed()) throw new RealtimeError('shutting_down');
        const channels = publishTargets(body);
        const user = await serverAccess.require(request, 'publish', channels);
        const given = idempotencyKey(request, body.key);
        const key = user === undefined ? given : keyOf(user, given);
        const data = dataOf(body.data);
        const trace = traceOf?.(request);
        const published = await Promise.all(channels.map((channel) => publishOne(hub, channel, data, key, trace)));
        return body.channels === undefined ? published[0] : published;
      },
      {
        parse: ({ request }) => readPublication(request, messageBytesMax),
        body: publishBody,
        detail: { summary: 'Publish to one or more channels', tags: ['api'] },
      },
    )
    .post(
      '/users/:user/notify',
      async ({ request, params, body }) => {
        if (isClosed()) throw new RealtimeError('shutting_down');
        serverAccess.requireServer(request);
        if (!isUser(params.user)) throw new RealtimeError('bad_request', `The user is not ${userShape}.`);
        const channel = requireChannel(`user:${channelPart(params.user)}`);
        const key = idempotencyKey(request, body.key);
        return publishOne(hub, channel, dataOf(body.data), key, traceOf?.(request));
      },
      {
        parse: ({ request }) => readPublication(request, messageBytesMax),
        body: notifyBody,
        detail: { summary: 'Publish to a user’s own channel', tags: ['api'] },
      },
    )
    .post(
      '/users/:user/disconnect',
      async ({ request, params: { user } }) => {
        serverAccess.requireServer(request);
        if (!isUser(user)) throw new RealtimeError('bad_request', `The user is not ${userShape}.`);
        const { value: connections, incomplete } = await cluster.disconnect(user);
        return { user, connections, ...namesOf(incomplete) };
      },
      {
        // The call has no body, and one that comes is not read.
        parse: () => ({}),
        detail: {
          summary: 'Close a user’s connections on all nodes',
          description: 'Answers how many there were. incomplete: the nodes that did not confirm, if there are any.',
          tags: ['api'],
        },
      },
    )
    .get(
      '/channels',
      async ({ request }) => {
        serverAccess.requireServer(request);
        const { value: channels, incomplete } = await cluster.channelCounts();
        return { channels, ...namesOf(incomplete) };
      },
      {
        detail: {
          summary: 'Channels with subscribers, over all nodes',
          description: 'incomplete: the nodes that did not answer, or not in full, if there are any.',
          tags: ['api'],
        },
      },
    )
    .get(
      '/channels/:channel/history',
      async ({ request, params }) => {
        const channel = requireChannel(params.channel);
        const user = await serverAccess.require(request, 'history', [channel]);
        const query = queryOf(request);
        const range = { since: sinceOf(query), limit: limitOf(query, historyLimits) };
        const before = beforeOf(query);
        const account = user?.user ?? backendAccount;
        const page = await hub.history(channel, before === undefined ? range : { limit: 1 }, account);
        let frame: string;
        if (before === undefined) {
          const messages = page.publications.map((publication) => publication.frame);
          frame = historyFrame(undefined, channel, page.head, messages, page.complete);
        } else {
          const { limit } = range;
          const older = await snapshots.older(channel, { identity: user ?? anonymous, account, before, limit });
          frame = olderFrame(undefined, channel, page.head, older.rows, older.complete);
        }
        return new Response(frame, { headers: { 'content-type': 'application/json; charset=utf-8' } });
      },
      {
        detail: {
          summary: 'A stretch of a channel’s history',
          description:
            'Query: limit; epoch and offset together read what follows that position; before reads rows that are older ' +
            'than the history, where a rule says which.',
          tags: ['api'],
        },
      },
    );
  return app as unknown as Elysia;
}
async function readPublication(request: Request, dataBytesMax: number): Promise<unknown> {
  const tooLarge = `The data is larger than ${dataBytesMax} bytes.`;
  const { text, members } = await readJsonBody(request, { bytesMax: dataBytesMax + envelopeBytes, tooLarge });
  // Null says as little as an absent member: serializers write it for a field that is empty.
  const given = Object.fromEntries(Object.entries(members).filter(([, value]) => value !== null));
  requireTexts(given);
  // As text, which goes out as it came in: printing it again would round large numbers.
  return { ...given, data: memberText(text, 'data') };
}

/**
 * Checked before the schema, so that the answer names the field. The framework's report of a wrong field prints the value,
 * and fails for one that cannot be printed, such as `{"toString": 1}`.
 */
function requireTexts({ channel = '', key, channels, to }: Readonly<Record<string, unknown>>): void {
  if (to !== undefined && to !== null) {
    // Without this everyone in the channel would get what was meant for one.
    throw new RealtimeError(
      'bad_request',
      '"to" is for WebSockets: POST /realtime/connections/:connection/send instead.',
    );
  }
  if (typeof channel !== 'string') throw new RealtimeError('bad_request', '"channel" is not a text.');
  if (key !== undefined && !isIdempotencyKey(key)) {
    throw new RealtimeError('bad_request', `"key" is not ${keyShape}.`);
  }
  if (channels !== undefined && !isChannelList(channels)) {
    throw new RealtimeError('bad_request', `"channels" is not a list of 1 to ${publishChannelsMax} texts.`);
  }
}

function isChannelList(value: unknown): boolean {
  if (!Array.isArray(value) || value.length === 0 || value.length > publishChannelsMax) return false;
  return value.every((name) => typeof name === 'string');
}

function dataOf(data: unknown): string {
  if (typeof data !== 'string') throw new RealtimeError('bad_request', '"data" is missing.');
  return singleLine(data);
}

async function publishOne(
  hub: Hub,
  channel: string,
  data: string,
  key: string | undefined,
  trace: string | undefined,
): Promise<Published> {
  const position = await hub.publish({ channel, data, key, source: 'api', trace });
  return { channel, ...position };
}

function publishTargets(body: { channel?: string; channels?: string[] }): string[] {
  const { channel, channels } = body;
  if ((channel === undefined) === (channels === undefined)) {
    throw new RealtimeError('bad_request', 'Give either "channel" or "channels".');
  }
  const targets = (channels ?? [channel]).map(requireChannel);
  if (targets.some(isServerChannel))
    throw new RealtimeError('forbidden', 'Channels that begin with $ are the server’s.');
  return targets;
}

function idempotencyKey(request: Request, key: string | undefined): string | undefined {
  const given = key ?? headerText(request, 'idempotency-key');
  if (given !== undefined && !isIdempotencyKey(given)) {
    throw new RealtimeError('bad_request', `The idempotency key is not ${keyShape}.`);
  }
  return given;
}

const sinceShape = '"epoch" and "offset" are given together, and "offset" is a whole number.';

function beforeOf(query: URLSearchParams): string | undefined {
  const before = query.get('before') ?? '';
  if (before === '') return undefined;
  if (!isBefore(before)) throw new RealtimeError('bad_request', beforeShape);
  if (sinceOf(query) !== undefined) {
    throw new RealtimeError('bad_request', 'Give either "before", or "epoch" and "offset".');
  }
  return before;
}

function sinceOf(query: URLSearchParams): Position | undefined {
  // Empty ones are those of a form, or of an address that was put together, that have no value.
  const epoch = query.get('epoch');
  const offset = query.get('offset');
  if ((epoch ?? '') === '' && (offset ?? '') === '') return undefined;
  const since = { epoch, offset: offset === null ? undefined : wholeNumberOf(offset) };
  if (!isPosition(since)) throw new RealtimeError('bad_request', sinceShape);
  return since;
}
