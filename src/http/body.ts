// Reads the JSON body of a request. Its size is bounded, and so is its depth: printing a deep one would hold up the
// process. Other content types are refused: a page of another site could send those without asking first.

import { isNestedTooDeeply, nestingMax } from '../protocol/json-text.ts';
import { RealtimeError } from '../protocol/realtime-error.ts';

export interface BodyLimit {
  readonly bytesMax: number;
  /** The sentence for a larger body. */
  readonly tooLarge: string;
}

export interface JsonBody {
  readonly text: string;
  readonly members: Readonly<Record<string, unknown>>;
}

/** Throws `too_large`, or `bad_request` for anything but a JSON object. */
export async function readJsonBody(request: Request, limit: BodyLimit): Promise<JsonBody> {
  refuseLength(request, limit);
  requireType(request);
  return parseBody(await textOf(request, limit));
}

/** As `readJsonBody`; a request without a body has an empty object. */
export async function readOptionalJsonBody(request: Request, limit: BodyLimit): Promise<JsonBody> {
  refuseLength(request, limit);
  const text = await textOf(request, limit);
  if (text === '') return { text, members: {} };
  requireType(request);
  return parseBody(text);
}

/** Before anything is read, if the header tells the length. The server itself bounds a body in chunks. */
function refuseLength(request: Request, { bytesMax, tooLarge }: BodyLimit): void {
  const length = Number(request.headers.get('content-length') ?? 0);
  if (length > bytesMax) throw new RealtimeError('too_large', tooLarge);
}

export function isJson(request: Request): boolean {
  return /^application\/json\s*(?:;|$)/i.test(request.headers.get('content-type') ?? '');
}

function requireType(request: Request): void {
  if (isJson(request)) return;
  throw new RealtimeError('bad_request', 'The body must be JSON, with content-type: application/json.');
}

const decoder = new TextDecoder('utf-8', { fatal: true });

/** By itself the runtime puts another character in place of each that is no UTF-8: nobody would learn of the loss. */
async function textOf(request: Request, { bytesMax, tooLarge }: BodyLimit): Promise<string> {
  const bytes = await request.bytes();
  if (bytes.length > bytesMax) throw new RealtimeError('too_large', tooLarge);
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
