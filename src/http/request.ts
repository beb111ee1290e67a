// What the transports and the HTTP API read from a request in the same way, token and channels, and how both answer
// errors.

import { isChannelName } from '../protocol/channel.ts';
import { RealtimeError } from '../protocol/realtime-error.ts';
import { answerHeaders } from './answer-headers.ts';

export const subprotocol = 'sobranie';
export const bearerProtocol = 'bearer.';
const tokenCookie = 'sobranie_token';

const none: readonly string[] = [];
const emptyQuery = new URLSearchParams();

/** The URL's query; parsed here because a stream's channels may hold any character that a URL can carry. */
export function queryOf(request: Request): URLSearchParams {
  const start = request.url.indexOf('?');
  return start === -1 ? emptyQuery : new URLSearchParams(request.url.slice(start + 1));
}

/** The first token found: in Authorization, subprotocol (WebSocket only), query, or cookie (if cookies count). */
export function tokenOf(request: Request, query: URLSearchParams, cookiesCount: boolean): string | undefined {
  const explicit = bearerOf(request) ?? subprotocolToken(request) ?? nonEmpty(query.get('token'));
  return explicit ?? (cookiesCount ? cookieToken(request) : undefined);
}

/** Throws `unauthorized` for a header that is meant to hold a token and does not hold exactly one. */
export function bearerOf(request: Request): string | undefined {
  const header = request.headers.get('authorization');
  if (header === null) return undefined;
  const match = /^Bearer +([^\s,]+)\s*$/i.exec(header);
  if (match !== null) return match[1];
  // Several headers arrive as one, joined by commas. Choosing one of them would be guessing who is meant.
  if (!/^Bearer +\S|, *Bearer /i.test(header)) return undefined;
  throw new RealtimeError('unauthorized', 'The Authorization header must hold one token: "Bearer <token>".');
}

export function offeredProtocols(request: Request): readonly string[] {
  const header = request.headers.get('sec-websocket-protocol');
  if (header === null) return none;
  return header
    .split(',')
    .map((name) => name.trim())
    .filter((name) => name !== '');
}

function subprotocolToken(request: Request): string | undefined {
  const offer = offeredProtocols(request).find((name) => name.startsWith(bearerProtocol));
  return nonEmpty(offer?.slice(bearerProtocol.length));
}

function cookieToken(request: Request): string | undefined {
  const header = request.headers.get('cookie');
  if (header === null) return undefined;
  for (const pair of header.split(';')) {
    const [name, ...value] = pair.split('=');
    if (name?.trim() === tokenCookie) return nonEmpty(value.join('=').trim());
  }
  return undefined;
}

function nonEmpty(text: string | null | undefined): string | undefined {
  return text === null || text === '' ? undefined : text;
}

/** The comma-separated `channels` of a query, each once, in order. Names are not checked yet. */
export function channelList(query: URLSearchParams): readonly string[] {
  if (!query.has('channels')) return none;
  const names = query.getAll('channels').flatMap((list) => list.split(','));
  return [...new Set(names.map((name) => name.trim()).filter((name) => name !== ''))];
}

export function requireChannel(name: unknown): string {
  if (!isChannelName(name)) throw new RealtimeError('bad_channel');
  return name;
}

/** An expected error as an HTTP answer. */
export function errorResponse(
  error: RealtimeError,
  status: number = error.status,
  more: Readonly<Record<string, string>> = {},
): Response {
  const headers = new Headers({
    ...answerHeaders,
    ...more,
    'content-type': 'application/json; charset=utf-8',
    'cache-control': 'no-store',
  });
  if (error.retryable || error.retryAfter !== undefined) {
    headers.set('retry-after', String(Math.ceil(error.retryAfter ?? 1)));
  }
  return new Response(JSON.stringify({ error: error.body() }), { status, headers });
}
