// What the transports and the HTTP API read from a request in the same way: query, token, channels, and a JSON body. The
// body's size is bounded, and so is its depth: printing a deep one would hold up the process. Other content types are
// refused: a page of another site could send those without asking first.

import { isChannelName } from '../protocol/channel.ts';
import { isNestedTooDeeply, nestingMax } from '../protocol/json-text.ts';
import { RealtimeError } from '../protocol/realtime-error.ts';

export const subprotocol = 'sobranie';
export const bearerProtocol = 'bearer.';
const tokenCookies = ['__Host-sobranie_token', 'sobranie_token'];

export interface BodyLimit {
  readonly bytesMax: number;
  /** The sentence for a larger body. */
  readonly tooLarge: string;
}

export interface JsonBody {
  readonly text: string;
  readonly members: Readonly<Record<string, unknown>>;
}

const none: readonly string[] = [];
const emptyQuery = new URLSearchParams();
const decoder = new TextDecoder('utf-8', { fatal: true });

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

/**
 * Any page of a sibling domain can set a cookie for this host too, and browsers send both without telling them apart. So
 * two that differ are refused. No other host can set the one with the prefix, so it counts before the other.
 */
function cookieToken(request: Request): string | undefined {
  const header = request.headers.get('cookie');
  if (header === null) return undefined;
  const pairs = header.split(';').map((pair) => pair.split('='));
  for (const wanted of tokenCookies) {
    const found = pairs.filter(([name]) => name?.trim() === wanted).map(([, ...value]) => value.join('=').trim());
    const [token, ...others] = new Set(found.filter((value) => value !== ''));
    if (others.length > 0) {
      throw new RealtimeError('unauthorized', `The request has several cookies ${wanted}, and they differ.`);
    }
    if (token !== undefined) return token;
  }
  return undefined;
}

function nonEmpty(text: string | null | undefined): string | undefined {
  return text === null || text === '' ? undefined : text;
}

/** The text of a header; undefined if it is missing or empty. Its bytes arrive as characters each, also those of UTF-8. */
export function headerText(request: Request, name: string): string | undefined {
  const header = request.headers.get(name);
  if (header === null || header === '') return undefined;
  if (!/[\u0080-\u00FF]/.test(header)) return header;
  try {
    return decoder.decode(Buffer.from(header, 'latin1'));
  } catch {
    return header;
  }
}

/** A whole number in decimal digits, as a query gives it; `1e2` and `0x10` are none. */
export function wholeNumberOf(text: string): number | undefined {
  return /^\d{1,16}$/.test(text) ? Number(text) : undefined;
}

export interface LimitRange {
  readonly min: number;
  readonly max: number;
  /** Where the query says nothing. */
  readonly standard: number;
}

/** The `limit` of a query. Throws `bad_request`. */
export function limitOf(query: URLSearchParams, { min, max, standard }: LimitRange): number {
  const text = query.get('limit');
  if (text === null || text === '') return standard;
  const limit = wholeNumberOf(text);
  if (limit !== undefined && limit >= min && limit <= max) return limit;
  throw new RealtimeError('bad_request', `"limit" is a whole number from ${min} to ${max}.`);
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

/** Throws `too_large`, or `bad_request` for anything but a JSON object. */
export async function readJsonBody(request: Request, limit: BodyLimit): Promise<JsonBody> {
  refuseLength(request, limit);
  requireType(request);
  return parseBody(textOf(request, await bytesOf(request, limit)));
}

/** As `readJsonBody`; a request without a body has an empty object. */
export async function readOptionalJsonBody(request: Request, limit: BodyLimit): Promise<JsonBody> {
  refuseLength(request, limit);
  const bytes = await bytesOf(request, limit);
  if (bytes.length === 0) return { text: '', members: {} };
  requireType(request);
  return parseBody(textOf(request, bytes));
}

/** Before anything is read, if the header tells the length. */
function refuseLength(request: Request, { bytesMax, tooLarge }: BodyLimit): void {
  const length = Number(request.headers.get('content-length') ?? 0);
  if (length > bytesMax) throw new RealtimeError('too_large', tooLarge);
}

export function isJson(request: Request): boolean {
  return /^application\/json\s*(?:;|$)/i.test(request.headers.get('content-type') ?? '');
}

/** Throws `bad_request` for a body of another type, and for one that is compressed. */
function requireType(request: Request): void {
  if (!isJson(request)) {
    throw new RealtimeError('bad_request', 'The body must be JSON, with content-type: application/json.');
  }
  const encoding = request.headers.get('content-encoding') ?? '';
  if (!/^\s*(?:identity\s*)?$/i.test(encoding)) {
    throw new RealtimeError(
      'bad_request',
      'The body is compressed (content-encoding), which this server does not read.',
    );
  }
}

/** In these ASCII's own bytes mean something else. All others hold ASCII as UTF-8 does. */
const unlikeAscii = /^(?:utf-?(?:16|32|7)|ucs-?[24]|iso-2022|hz)/i;

/** Bytes of a refused body that may still come over a connection that goes on. */
const passedOverMax = 1 << 20;

/**
 * For the answer to a body that is too large. Where the rest of it is long, or nobody knows how long, the connection ends
 * with the answer: otherwise the sender could go on for ever.
 */
export function endingHeaders(request: Request, { code }: RealtimeError): Readonly<Record<string, string>> {
  const length = Number(request.headers.get('content-length') ?? Infinity);
  return code === 'too_large' && length > passedOverMax ? { connection: 'close' } : {};
}

/** A body in chunks has no length: no more of it is kept than may be taken. */
async function bytesOf(request: Request, { bytesMax, tooLarge }: BodyLimit): Promise<Uint8Array> {
  if (request.headers.has('content-length') || request.body === null) return request.bytes();
  const reader = request.body.getReader() as ReadableStreamDefaultReader<Uint8Array>;
  const chunks: Uint8Array[] = [];
  for (let length = 0; ;) {
    const { done, value } = await reader.read();
    if (done) return Buffer.concat(chunks);
    length += value.length;
    if (length > bytesMax) {
      // It may fail, and then the sender is gone; nobody waits for it.
      void reader.cancel().catch(() => undefined);
      throw new RealtimeError('too_large', tooLarge);
    }
    chunks.push(value);
  }
}

/** By itself the runtime puts another character in place of each that is no UTF-8: nobody would learn of the loss. */
/** Bytes beyond ASCII may be valid UTF-8 by chance: where the sender names another charset, they mean other characters. */
function textOf(request: Request, bytes: Uint8Array): string {
  const charset = /;\s*charset\s*=\s*"?([^\s";]+)/i.exec(request.headers.get('content-type') ?? '')?.[1] ?? 'utf-8';
  const isMisnamed = !/^utf-?8$/i.test(charset) && (unlikeAscii.test(charset) || bytes.some((byte) => byte > 127));
  if (isMisnamed) {
    throw new RealtimeError('bad_request', 'The body must be UTF-8; its content-type names another charset.');
  }
  try {
    return decoder.decode(bytes);
  } catch {
    throw new RealtimeError('bad_request', 'The body is not UTF-8.');
  }
}

function parseBody(text: string): JsonBody {
  if (isNestedTooDeeply(text)) {
    throw new RealtimeError('bad_request', `The body is nested more than ${nestingMax} deep.`);
  }
  let body: unknown;
  try {
    body = JSON.parse(text);
  } catch {
    throw new RealtimeError('bad_request', 'The body is not valid JSON.');
  }
  if (typeof body !== 'object' || body === null || Array.isArray(body)) {
    throw new RealtimeError('bad_request', 'The body is not a JSON object.');
  }
  return { text, members: body as JsonBody['members'] };
}
