// Server-sent events as text: one encoder for every event and every keep-alive.
//
// Every blank line ends an event that has data. Some clients take any other blank line for an event without data, and
// hand their application an empty message: after a comment, and after a `retry` of its own. So no blank line follows
// those here. A comment stands before the next event, and `retry` within one.

export interface SseEvent {
  readonly event: string;
  /** JSON on one line, as every frame of this server is. */
  readonly data: string;
  /** A cursor, which holds only characters of base64url and `.`. */
  readonly id?: string | undefined;
  /** Milliseconds after which an EventSource reconnects. */
  readonly retryMs?: number;
}

/** Throws on a line break in `data` or `id`, which could forge fields, and on a NUL in `id`, which browsers ignore. */
export function sseEvent(event: SseEvent): string {
  return sseHead(event) + sseData(event.data) + sseEnd;
}

/** What stands before an event's data: they may be sent by themselves, and `sseEnd` follows them. Throws as `sseEvent`. */
export function sseHead({ event, id, retryMs }: Omit<SseEvent, 'data'>): string {
  const retryLine = retryMs === undefined ? '' : `retry: ${Math.max(0, Math.round(retryMs))}\n`;
  if (id === undefined) return `event: ${event}\n${retryLine}data: `;
  if (breaksLine(id) || id.includes('\u0000')) throw new Error('an event id must be a single line without NUL');
  return `event: ${event}\n${retryLine}id: ${id}\ndata: `;
}

/** The data as they are. Throws as `sseEvent`. */
export function sseData(data: string): string {
  if (breaksLine(data)) throw new Error('event data must be a single line');
  return data;
}

export const sseEnd = '\n\n';

/** A line that clients ignore, and that keeps proxies from cutting a quiet stream. It stands between two events. */
export function sseComment(text: string): string {
  return `: ${text}\n`;
}

function breaksLine(text: string): boolean {
  return text.includes('\n') || text.includes('\r');
}
