// `/realtime/ws` and `/realtime/events` as an Elysia plugin: reads the request, hands a connection to the hub.

import { Elysia } from 'elysia';
import { anonymous, type Authenticate } from '../core/access.ts';
import type { Hub } from '../core/hub.ts';
import type { SubscribeRequest } from '../core/subscriber.ts';
import type { MaybePromise } from '../core/sync-adapter.ts';
import { closeCodes } from '../protocol/codes.ts';
import { decodeCursor, type DecodedCursor } from '../protocol/cursor.ts';
import { RealtimeError } from '../protocol/realtime-error.ts';
import type { EventFanout } from './event-fanout.ts';
import { byteStrategy, EventStream } from './event-stream.ts';
import { answerHeaders } from './answer-headers.ts';
import type { Origins } from './origins.ts';
import {
  channelList,
  errorResponse,
  offeredProtocols,
  queryOf,
  requireChannel,
  bearerProtocol,
  subprotocol,
  tokenOf,
} from './request.ts';
import { WebSocketConnection, type ConnectionStart, type Refusal } from './websocket.ts';

/** What Bun's server offers to these routes. */
export interface UpgradingServer {
  upgrade(request: Request, options: { data: WebSocketConnection; headers?: Record<string, string> }): boolean;
  timeout(request: Request, seconds: number): void;
}

export interface RealtimeOptions {
  readonly hub: Hub;
  readonly events: EventFanout;
  readonly authenticate: Authenticate;
  readonly origins: Origins;
  /** Both transports together. */
  readonly connectionsMax: number;
  /** Milliseconds an EventSource waits before it reconnects; each stream is told its own, up to half as much again. */
  readonly retryMs: number;
  readonly transports: { readonly websocket: boolean; readonly sse: boolean };
  readonly isShuttingDown: () => boolean;
}

export const streamChannelsMax = 50;

export function realtimeRoutes(options: RealtimeOptions): Elysia {
  const app = new Elysia({ name: 'sobranie-realtime' });
  if (options.transports.websocket) {
    app.get('/realtime/ws', ({ request, server }) => openWebSocket(request, asUpgrading(server), options), {
      detail: {
        summary: 'WebSocket',
        description: 'Text frames of JSON. Query: token, channels. Answers 426 to a request that is no upgrade.',
        tags: ['realtime'],
      },
    });
  }
  if (options.transports.sse) {
    app.get('/realtime/events', ({ request, server }) => openEvents(request, asUpgrading(server), options), {
      detail: {
        summary: 'Server-sent events',
        description: `Query: channels (1 to ${streamChannelsMax}, comma-separated), token, since (a cursor).`,
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
  const { hub } = options;
  if (request.headers.get('upgrade')?.toLowerCase() !== 'websocket') {
    const error = new RealtimeError('bad_request', 'This address speaks WebSocket only.');
    const response = errorResponse(error, 426);
    response.headers.set('upgrade', 'websocket');
    return response;
  }
  try {
    options.origins.check(request);
  } catch (error) {
    hub.observer.connection('websocket', 'refused');
    return errorResponse(hub.expected(error));
  }
  const query = queryOf(request);
  const channels = channelList(query);
  const refusal = refusalOf(options);
  if (refusal !== undefined) {
    if (isRetriedElsewhere(request)) return errorResponse(new RealtimeError(refusal.reason), 503);
    return upgrade(request, server, { hub, identity: anonymous, channels, refusal });
  }
  const refuse = (error: unknown) => {
    hub.observer.connection('websocket', 'refused');
    return upgrade(request, server, {
      hub,
      identity: anonymous,
      channels,
      refusal: refusalFor(hub.expected(error)),
    });
  };
  try {
    const identity = options.authenticate(tokenOf(request, query, options.origins.trustsCookies(request)));
    if (!(identity instanceof Promise)) return upgrade(request, server, { hub, identity, channels });
    return identity.then((known) => upgrade(request, server, { hub, identity: known, channels }), refuse);
  } catch (error) {
    return refuse(error);
  }
}

function upgrade(request: Request, server: UpgradingServer | null, start: ConnectionStart): Response | undefined {
  const data = new WebSocketConnection(start);
  const offered = offeredProtocols(request);
  // The runtime would echo what was offered first: a token must not stand in an answer.
  const answersProtocol = offered.includes(subprotocol) || offered.some((name) => name.startsWith(bearerProtocol));
  const upgraded = server?.upgrade(request, answersProtocol ? { data, headers: protocolHeaders } : { data });
  if (upgraded === true) return undefined;
  return errorResponse(new RealtimeError('bad_request', 'The WebSocket handshake is malformed.'));
}

const protocolHeaders = { 'sec-websocket-protocol': subprotocol };

function refusalOf({ hub, connectionsMax, isShuttingDown }: RealtimeOptions): Refusal | undefined {
  if (isShuttingDown()) {
    hub.observer.connection('websocket', 'shutting_down');
    return { code: closeCodes.goingAway, reason: 'shutting_down' };
  }
  if (hub.sessions.size >= connectionsMax) {
    hub.observer.connection('websocket', 'limit');
    return { code: closeCodes.tryAgainLater, reason: 'limit_exceeded' };
  }
  return undefined;
}

/**
 * A browser learns nothing of a failed handshake, so it is upgraded and told by a close code. A proxy that has other
 * nodes to ask says so, and is answered what it understands.
 */
function isRetriedElsewhere(request: Request): boolean {
  return request.headers.get('x-retry-on') === '503';
}

function refusalFor(error: RealtimeError): Refusal {
  const code = error.code === 'unavailable' ? closeCodes.tryAgainLater : closeCodes.policyViolation;
  return { code, reason: error.code };
}

async function openEvents(
  request: Request,
  server: UpgradingServer | null,
  options: RealtimeOptions,
): Promise<Response> {
  const { hub, events } = options;
  try {
    options.origins.check(request);
    const query = queryOf(request);
    admit(options);
    const channels = streamChannels(query);
    const identity = await options.authenticate(tokenOf(request, query, options.origins.trustsCookies(request)));
    const retryMs = options.retryMs * (1 + hub.clock.random() / 2);
    const stream = new EventStream(channels, events, retryMs);
    const session = hub.connect(identity, stream);
    stream.attach(session);
    try {
      await hub.subscribe(session, resumeRequests(channels, cursorOf(request, query, channels), stream));
    } catch (error) {
      stream.end(closeCodes.policyViolation);
      throw error;
    }
    if (request.signal.aborted) stream.end(1006);
    else events.add(stream);
    // A quiet stream is kept by comments; the server's own timeout for idle requests must not cut it.
    server?.timeout(request, 0);
    return new Response(new ReadableStream(stream, byteStrategy), {
      headers: { ...streamHeaders, ...options.origins.headers(request) },
    });
  } catch (error) {
    const expected = hub.expected(error);
    if (!['limit_exceeded', 'shutting_down'].includes(expected.code)) hub.observer.connection('sse', 'refused');
    return errorResponse(expected, expected.status, options.origins.headers(request));
  }
}

const streamHeaders = {
  ...answerHeaders,
  'content-type': 'text/event-stream; charset=utf-8',
  'cache-control': 'no-cache, no-transform',
  'x-accel-buffering': 'no',
};

function admit({ hub, connectionsMax, isShuttingDown }: RealtimeOptions): void {
  if (isShuttingDown()) {
    hub.observer.connection('sse', 'shutting_down');
    throw new RealtimeError('shutting_down');
  }
  if (hub.sessions.size >= connectionsMax) {
    hub.observer.connection('sse', 'limit');
    throw new RealtimeError('limit_exceeded', 'The server has no room for more connections.', { retryAfter: 10 });
  }
}

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
