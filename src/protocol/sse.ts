// Server-sent events as text: one encoder for every event, comment and retry line.

/**
 * One event. `data` must be JSON on one line, as every frame of this server is; `id` a cursor, which holds only
 * characters of base64url and `.`. Both are checked, since a line break would let data forge fields of the stream,
 * and a NUL in an id makes browsers ignore it.
 */
export function sseEvent(event: string, data: string, id?: string): string {
  if (breaksLine(data)) throw new Error('event data must be a single line');
  if (id === undefined) return `event: ${event}\ndata: ${data}\n\n`;
  if (breaksLine(id) || id.includes('\u0000')) throw new Error('an event id must be a single line without NUL');
  return `event: ${event}\nid: ${id}\ndata: ${data}\n\n`;
}

/** A line that a client ignores and that keeps proxies from cutting a quiet stream. */
export function sseComment(text: string): string {
  return `: ${text}\n\n`;
}

/** Tells an EventSource how many milliseconds to wait before it reconnects. */
export function sseRetry(milliseconds: number): string {
  return `retry: ${Math.max(0, Math.round(milliseconds))}\n\n`;
}

function breaksLine(text: string): boolean {
  return text.includes('\n') || text.includes('\r');
}
