// `/realtime/ws` and `/realtime/events` as an Elysia plugin: reads the request, hands a connection to the hub.

import { Elysia } from 'elysia';
import { anonymous } from '../core/access.ts';
import type { Session } from '../core/session.ts';
import type { Sessions } from '../core/sessions.ts';
import type { Subscribing } from '../core/subscribing.ts';
import type { SubscribeRequest } from '../core/subscription.ts';
import type { Clock } from '../time/clock.ts';
import type { MaybePromise } from '../core/maybe-promise.ts';
import { closeCodes } from '../protocol/codes.ts';
import { decodeCursor, type DecodedCursor } from '../protocol/cursor.ts';
import { RealtimeError } from '../protocol/realtime-error.ts';
import { NodeUnavailable, type Admission, type Visitor } from './admission.ts';
import { DeflatedConnection } from './deflated.ts';
import { acceptsGzip } from './shared-chunk.ts';
import { sse, type EventFanout } from './event-fanout.ts';
import { byteStrategy, EventStream, type StreamKind } from './event-stream.ts';
import { answerHeaders } from '../http/answer-headers.ts';
import type { Origins } from '../http/origins.ts';
import { errorResponse } from '../http/errors.ts';
import { channelList, offeredProtocols, queryOf, requireChannel, subprotocol } from '../http/request.ts';
import { websocket, WebSocketConnection, type ConnectionStart } from './websocket.ts';

/** What Bun's server offers to these routes. */
export interface UpgradingServer {
  upgrade(request: Request, options: { data: WebSocketConnection; headers?: Record<string, string> }): boolean;
  timeout(request: Request, seconds: number): void;
}

export interface RealtimeOptions {
  readonly sessions: Sessions;
  readonly subscribing: Subscribing;
  readonly clock: Clock;
  readonly events: EventFanout;
  readonly admission: Admission;
  readonly origins: Origins;
  /** Milliseconds an EventSource waits before it reconnects; each stream gets its own, up to half as much again. */
  readonly retryMs: number;
  /** Seconds for which a connection may be silent where nothing is being opened. */
  readonly silenceSecondsMax: number;
  /** Streams are compressed for clients that take gzip. */
  readonly compresses: boolean;
  /** Frames are compressed for WebSocket clients that ask for it. */
  readonly deflates: boolean;
  readonly transports: { readonly websocket: boolean; readonly sse: boolean };
}

export const streamChannelsMax = 50;

export function realtimeRoutes(options: RealtimeOptions): Elysia {
  const app = new Elysia({ name: 'sobranie-realtime' });
  if (options.transports.websocket) {
    app.get('/realtime/ws', ({ request, server }) => openWebSocket(request, asUpgrading(server), options), {
      detail: {
        summary: 'WebSocket',
        description:
          'Text frames of JSON. Query: token, channels, deflate=1 (large messages compressed, where WS_COMPRESSION is' +
          ' on). Answers 426 to a request that is no upgrade.',
        tags: ['realtime'],
      },
    });
  }
  if (options.transports.sse) {
    const kinds = streamKinds(options);
    app.get('/realtime/events', ({ request, server }) => openEvents(request, asUpgrading(server), options, kinds), {
      detail: {
        summary: 'Server-sent events',
        description:
          `Query: channels (1 to ${streamChannelsMax}, comma-separated), token, since (a cursor), ping=1 (keep-alives` +
          ' are events, which a page can see).',
        tags: ['realtime'],
      },
    });
  }
  return app;
}

// Elysia types its server without this project's socket data.
function asUpgrading(server: unknown): UpgradingServer | null {
  return server as UpgradingServer | null;
}

/** Synchronous where nothing has to be waited for: what a request allocates stays in the memory of idle connections. */
function openWebSocket(
  request: Request,
  server: UpgradingServer | null,
  options: RealtimeOptions,
): MaybePromise<Response | undefined> {
  const { sessions, admission, origins } = options;
  if (request.headers.get('upgrade')?.toLowerCase() !== 'websocket') {
    const error = new RealtimeError('bad_request', 'This address speaks WebSocket only.');
    const response = errorResponse(error, 426);
    response.headers.set('upgrade', 'websocket');
    return response;
  }
  try {
    origins.check(request);
  } catch (error) {
    return errorResponse(admission.refused(websocket, request, error));
  }
  const query = queryOf(request);
  const channels = channelList(query);
  const deflates = options.deflates && query.get('deflate') === '1';
  const refuse = (error: unknown) => {
    const expected = admission.refused(websocket, request, error);
    if (isRetriedElsewhere(request, error)) return errorResponse(expected, 503);
    return upgrade(request, server, { sessions, identity: anonymous, channels, refusal: expected });
  };
  try {
    const opened = admission.admit(request, query, ({ identity, address }) =>
      upgrade(request, server, { sessions, identity, address, channels, deflates }),
    );
    return opened instanceof Promise ? opened.catch(refuse) : opened;
  } catch (error) {
    return refuse(error);
  }
}

/** What the runtime takes at most. */
const openingSecondsMax = 255;

function upgrade(request: Request, server: UpgradingServer | null, start: ConnectionStart): Response | undefined {
  const data = start.deflates === true ? new DeflatedConnection(start) : new WebSocketConnection(start);
  const offered = offeredProtocols(request);
  // By itself the runtime answers what was offered first. That may be a token, or a protocol that is not spoken here. One
  // that was not offered ends the connection at the client.
  const headers = offered.includes(subprotocol) ? protocolHeaders : noProtocolHeaders;
  const upgraded = server?.upgrade(request, offered.length === 0 ? { data } : { data, headers });
  if (upgraded === true) return undefined;
  return errorResponse(new RealtimeError('bad_request', 'The WebSocket handshake is malformed.'));
}

const protocolHeaders = { 'sec-websocket-protocol': subprotocol };
const noProtocolHeaders = { 'sec-websocket-protocol': '' };

/**
 * A page cannot see why a handshake failed, so the connection is opened and closed with a code. A proxy that can try
 * other nodes says so, and gets an HTTP status.
 */
function isRetriedElsewhere(request: Request, error: unknown): boolean {
  return error instanceof NodeUnavailable && request.headers.get('x-retry-on') === '503';
}

async function openEvents(
  request: Request,
  server: UpgradingServer | null,
  options: RealtimeOptions,
  kinds: readonly StreamKind[],
): Promise<Response> {
  const { subscribing, events, admission, origins } = options;
  // Rows, rights and what was missed may take longer together than a request may be silent. Each has a limit of its own.
  server?.timeout(request, openingSecondsMax);
  try {
    origins.check(request);
    const query = queryOf(request);
    const named = streamChannels(query);
    const compresses = options.compresses && acceptsGzip(request);
    const wantsPings = query.get('ping') === '1';
    const kind = kinds.find((each) => each.compresses === compresses && each.wantsPings === wantsPings);
    if (kind === undefined) throw new Error('a kind of event stream is missing');
    const { stream, session } = await admission.admit(request, query, (visitor) =>
      connect(visitor, named, kind, options),
    );
    try {
      const more = (await subscribing.joined(session)).filter((name) => !named.includes(name));
      const channels = more.length === 0 ? named : [...named, ...more];
      stream.channels = channels;
      await admission.subscribe(session, channels.length);
      const requests = resumeRequests(channels, cursorOf(request, query, channels), stream);
      const presence = query.get('presence') === '1' ? 'null' : undefined;
      const snapshot = query.get('snapshot') === '1' ? 'where there are any' : undefined;
      await subscribing.subscribe(
        session,
        requests.map((each, index) => ({ ...each, snapshot, presence: index < named.length ? presence : undefined })),
      );
    } catch (error) {
      stream.end(closeCodes.policyViolation);
      throw error;
    }
    if (request.signal.aborted) stream.end(1006);
    // It may have been ended meanwhile, by an operator or with its token: then nobody would take it out again.
    if (!stream.ended) events.add(stream);
    // A quiet stream is kept by keep-alives; the server's own timeout for idle requests must not cut it.
    server?.timeout(request, 0);
    return new Response(new ReadableStream(stream, byteStrategy), {
      headers: { ...streamHeaders, ...(compresses ? gzipHeaders : {}), ...origins.headers(request) },
    });
  } catch (error) {
    server?.timeout(request, options.silenceSecondsMax);
    const expected = admission.refused(sse, request, error);
    const status = isRetriedElsewhere(request, error) ? 503 : expected.status;
    return errorResponse(expected, status, origins.headers(request));
  }
}

function connect(
  { identity, address }: Visitor,
  channels: readonly string[],
  kind: StreamKind,
  { sessions }: RealtimeOptions,
): { stream: EventStream; session: Session } {
  const stream = new EventStream(channels, kind);
  const session = sessions.connect(identity, stream, address);
  stream.attach(session);
  return { stream, session };
}

/** All that there are. */
function streamKinds({ clock, events: fanout, retryMs }: RealtimeOptions): readonly StreamKind[] {
  const ownRetryMs = (): number => retryMs * (1 + clock.random() / 2);
  return [false, true].flatMap((compresses) =>
    [false, true].map((wantsPings) => ({ fanout, retryMs: ownRetryMs, wantsPings, compresses })),
  );
}

const streamHeaders = {
  ...answerHeaders,
  'content-type': 'text/event-stream; charset=utf-8',
  'cache-control': 'no-cache, no-transform',
  'x-accel-buffering': 'no',
};

/** No `vary`: no cache keeps a stream. */
const gzipHeaders = { 'content-encoding': 'gzip' };

function streamChannels(query: URLSearchParams): readonly string[] {
  const channels = channelList(query);
  if (channels.length === 0 || channels.length > streamChannelsMax) {
    throw new RealtimeError('bad_request', `"channels" names 1 to ${streamChannelsMax} channels.`);
  }
  for (const channel of channels) requireChannel(channel);
  return channels;
}

/** A browser that reconnects says `Last-Event-ID`, which is newer than the `since` of its URL. */
function cursorOf(
  request: Request,
  query: URLSearchParams,
  channels: readonly string[],
): DecodedCursor | 'unknown' | undefined {
  const text = request.headers.get('last-event-id') || query.get('since');
  if (text === null || text === '') return undefined;
  const cursor = decodeCursor(text);
  // One of a stream with other channels says as little as noise does; a single known channel makes it this stream's.
  const known = channels.some((channel) => cursor !== undefined && cursor.entry(channel, '').kind !== 'absent');
  return known ? cursor : 'unknown';
}

function resumeRequests(
  channels: readonly string[],
  cursor: DecodedCursor | 'unknown' | undefined,
  stream: EventStream,
): SubscribeRequest[] {
  if (cursor === undefined) return channels.map((channel) => ({ channel }));
  return channels.map((channel) => ({
    channel,
    resume: (epoch) => {
      const entry = cursor === 'unknown' ? ({ kind: 'epoch_changed' } as const) : cursor.entry(channel, epoch);
      if (entry.kind === 'absent') return undefined;
      if (entry.kind === 'epoch_changed') return 'lost';
      const position = { epoch, offset: entry.offset };
      stream.resumeFrom(channel, position);
      return position;
    },
  }));
}
