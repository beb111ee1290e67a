// One request to the receiver: a batch of events, signed. The receiver has taken them if it answers 2xx in time. It may
// get a batch twice, as an answer can be lost: events have ids.

import { createHmac } from 'node:crypto';
import { isDoneWithin } from '../time/within.ts';
import type { WaitingEvent } from './store.ts';

export interface DeliveryOptions {
  readonly url: string;
  /** Signs each request; undefined leaves them unsigned. */
  readonly secret: string | undefined;
  readonly timeoutMs: number;
  readonly now: () => number;
}

/** The receiver did not take the events. */
export class NotTaken extends Error {
  /** For how long it wants to be left alone; 0: it does not say. */
  readonly retryAfterMs: number;

  constructor(status: number, retryAfterMs: number) {
    super(`the receiver of the hooks answered ${status}`);
    this.name = 'NotTaken';
    this.retryAfterMs = retryAfterMs;
  }
}

const statusOk = 200;
const statusRedirect = 300;
/** More of an answer, or what takes longer, is not read. */
const answerBytesMax = 64 << 10;
const answerMsMax = 1_000;

export class Delivery {
  readonly #options: DeliveryOptions;

  constructor(options: DeliveryOptions) {
    this.#options = options;
  }

  /** Rejects with a reason that names no secret. */
  async send(events: readonly WaitingEvent[], signal: AbortSignal): Promise<void> {
    const { url, timeoutMs, now } = this.#options;
    const body = JSON.stringify({ events: events.map(toWire) });
    const timestamp = String(Math.floor(now() / 1_000));
    const response = await fetch(url, {
      method: 'POST',
      headers: { 'content-type': 'application/json', 'user-agent': 'sobranie', ...this.#signed(timestamp, body) },
      body,
      // Followed, it would become a GET, or take the events to where nobody configured.
      redirect: 'manual',
      // The runtime would fail for an answer whose body is not what its content-encoding says.
      decompress: false,
      signal: AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]),
    });
    await discard(response.body);
    if (response.status < statusOk || response.status >= statusRedirect) {
      const seconds = /^\d{1,6}$/.exec(response.headers.get('retry-after') ?? '')?.[0] ?? 0;
      throw new NotTaken(response.status, Number(seconds) * 1_000);
    }
  }

  #signed(timestamp: string, body: string): Record<string, string> {
    const { secret } = this.#options;
    if (secret === undefined) return {};
    const signature = createHmac('sha256', secret).update(`${timestamp}.${body}`).digest('hex');
    return { 'x-sobranie-timestamp': timestamp, 'x-sobranie-signature': `sha256=${signature}` };
  }
}

/**
 * What the receiver says is of no interest, and may have no end. It is read all the same where it is short: cut off, the
 * receiver would see each connection reset, and have a new one for each batch.
 */
async function discard(body: Response['body']): Promise<void> {
  if (body === null) return;
  const reader = body.getReader();
  const read = async (): Promise<void> => {
    for (let bytes = 0; bytes <= answerBytesMax;) {
      const { done, value } = await reader.read();
      if (done) return;
      bytes += value.byteLength;
    }
  };
  // That it breaks off changes nothing: the status has come.
  await isDoneWithin(read(), answerMsMax).catch(() => false);
  await reader.cancel().catch(() => undefined);
}

function toWire({ id, event, channel, who, at }: WaitingEvent): object {
  const about = channel === '' ? {} : { channel };
  if (who === '') return { id, event, ...about, at };
  const name = who.slice(who.indexOf(':') + 1);
  return who.startsWith('u:')
    ? { id, event, ...about, user: name, at }
    : { id, event, ...about, user: null, connection: name, at };
}
