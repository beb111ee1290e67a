// Whether a layer refused one row, or could take nothing at all. What is refused is refused again, so it must not hold
// up the rows after it.

import { DeadlineError } from '../time/within.ts';
import { RealtimeError } from '../protocol/realtime-error.ts';

/** First words of answers of Redis that say how the server is, and nothing of what it was asked. */
const passing = new Set([
  ...['LOADING', 'MASTERDOWN', 'CLUSTERDOWN', 'TRYAGAIN', 'BUSY', 'READONLY', 'MISCONF', 'NOREPLICAS', 'MOVED', 'ASK'],
  ...['NOAUTH', 'WRONGPASS', 'NOPERM', 'NOSCRIPT', 'NOTNEXT', 'TERMENDED', 'UNKILLABLE', 'OOM'],
]);

/** One word for the reason; undefined when the layer could not be reached, or takes nothing from anybody now. */
export function refusalOf(error: unknown): string | undefined {
  if (error instanceof DeadlineError || !(error instanceof Error)) return undefined;
  if (error.name === 'ReplyError') {
    const [word = ''] = error.message.split(' ', 1);
    return passing.has(word) ? undefined : word;
  }
  if (error.cause !== undefined) return refusalOf(error.cause);
  if (error instanceof RealtimeError) return error.retryable ? undefined : error.code;
  // A row that the code of this server could not take. All else is a failure on the way: drivers tell those of a network,
  // a connection or a time limit by plain errors too.
  return error instanceof TypeError || error instanceof RangeError ? error.name : undefined;
}

/** The server is full. A large value is then refused while small ones are not. */
export function isOutOfMemory(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  return (error.name === 'ReplyError' && error.message.startsWith('OOM')) || isOutOfMemory(error.cause);
}
