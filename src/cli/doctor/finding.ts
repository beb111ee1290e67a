// What a check has found. A fault is one of a few kinds, for each of which something is known to be done about it.

export type Fault =
  /** What a stream sends is kept until much has come together, or until it ends. */
  | 'buffering'
  /** Each event is late by the moment that something waits for more bytes. */
  | 'late'
  /** No WebSocket passes. */
  | 'upgrade'
  | 'subprotocol'
  /** A connection for each request: HTTP/1.0 somewhere on the way. */
  | 'http10'
  /** A stream, or a request, is answered from a cache. */
  | 'cache'
  /** Compression on the way keeps events back. */
  | 'gzip'
  /** Nodes take the gateway for the client. */
  | 'address'
  /** Nodes believe what a client says of its own address. */
  | 'forged'
  /** A stream ends after some time, whatever happens on it. */
  | 'cut'
  /** A connection on which nothing happens ends too soon. */
  | 'idle';

export type Outcome = 'ok' | 'warn' | 'fail' | 'skip';

export interface Finding {
  readonly check: string;
  readonly outcome: Outcome;
  readonly message: string;
  readonly fault?: Fault;
}

export function ok(check: string, message: string): Finding {
  return { check, outcome: 'ok', message };
}

export function skip(check: string, message: string): Finding {
  return { check, outcome: 'skip', message };
}

export function warn(check: string, message: string, fault?: Fault): Finding {
  return { check, outcome: 'warn', message, ...(fault === undefined ? {} : { fault }) };
}

export function fail(check: string, message: string, fault?: Fault): Finding {
  return { check, outcome: 'fail', message, ...(fault === undefined ? {} : { fault }) };
}
