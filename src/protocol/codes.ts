// Every code that crosses the wire, in one table each: error codes, close codes, reasons of a gap.

/** Error codes: the fixed text for the client, whether a retry can help, and the HTTP status of the same error. */
export const errorCodes = {
  bad_frame: { retryable: false, status: 400, message: 'The frame is not a JSON object.' },
  unknown_command: { retryable: false, status: 400, message: 'This command type is not known.' },
  bad_request: { retryable: false, status: 400, message: 'A field of the request is missing or malformed.' },
  bad_channel: {
    retryable: false,
    status: 400,
    message: 'A channel is 1 to 256 characters of A-Z a-z 0-9 _ . : - @ / and %XX',
  },
  unauthorized: { retryable: false, status: 401, message: 'A valid token is needed.' },
  token_expired: { retryable: false, status: 401, message: 'The token has expired.' },
  forbidden: { retryable: false, status: 403, message: 'No rule allows this.' },
  not_subscribed: { retryable: false, status: 409, message: 'This connection is not subscribed to the channel.' },
  too_large: { retryable: false, status: 413, message: 'The message is larger than the limit.' },
  rate_limited: { retryable: true, status: 429, message: 'Too many requests; slow down.' },
  limit_exceeded: { retryable: false, status: 429, message: 'A limit of this server is reached.' },
  unavailable: { retryable: true, status: 503, message: 'The server cannot do this right now; retry.' },
  shutting_down: { retryable: true, status: 503, message: 'This server is shutting down; reconnect.' },
  internal: { retryable: true, status: 500, message: 'Something failed on the server.' },
} as const satisfies Record<string, { retryable: boolean; status: number; message: string }>;

export type ErrorCode = keyof typeof errorCodes;

/** WebSocket close codes that this server sends. 1006 is never sent: it is what a cut connection looks like. */
export const closeCodes = {
  normal: 1000,
  goingAway: 1001,
  unsupportedData: 1003,
  policyViolation: 1008,
  tooBig: 1009,
  tryAgainLater: 1013,
} as const;

/** Why a subscriber may have missed publications. */
export type GapReason = 'trimmed' | 'epoch_changed' | 'overflow';
