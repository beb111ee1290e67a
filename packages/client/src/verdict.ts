// What the end of a link means: whether there is another attempt, and after which pause. The codes that say no are those
// of the protocol; everything else is tried again for ever.

import { SobranieError } from './errors.ts';
import type { LinkEnd } from './link.ts';
import type { ErrorFrame } from './protocol.ts';

export interface Verdict {
  readonly error: SobranieError;
  /** It has to wait, whatever happens meanwhile: the server, or a limit, has said so. */
  readonly isLater: boolean;
  /** Milliseconds to wait before the random pause. */
  readonly waitMs: number;
}

/**
 * `refusal` is the error frame that came before the end. `mayDoubt` says that the token was not refused before, so that
 * another one may be asked for.
 */
export function verdictOf(
  { code, reason, retryAfterMs }: LinkEnd,
  refusal: ErrorFrame | undefined,
  mayDoubt: boolean,
): Verdict {
  const isLater = code === 1013 || reason === 'rate_limited';
  const mayTry =
    code === 1008
      ? isLater || reason === 'token_expired' || (reason === 'unauthorized' && mayDoubt)
      : code !== 1003 && code !== 1009;
  const waitMs = (refusal?.retryAfter ?? 0) * 1_000 || (retryAfterMs ?? (isLater ? 5_000 : 0));
  const name = code === 1009 ? 'too_large' : code === 1003 ? 'bad_frame' : code === 1008 || code === 1013 ? reason : '';
  const why = reason || (code === 1006 ? 'no answer' : code);
  const message = refusal?.message ?? `no connection: ${why}`;
  return { error: new SobranieError(name || 'unavailable', { message, retryable: mayTry }), isLater, waitMs };
}
