// One request to the receiver: a batch of events, signed. The receiver has taken them if it answers 2xx in time. It may
// get a batch twice, as an answer can be lost: events have ids.

import { createHmac } from 'node:crypto';
import type { WaitingEvent } from './store.ts';

export interface DeliveryOptions {
  readonly url: string;
  /** Signs each request; undefined leaves them unsigned. */
  readonly secret: string | undefined;
  readonly timeoutMs: number;
  readonly now: () => number;
}

const statusOk = 200;
const statusRedirect = 300;

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
    // What it says is of no interest, and may have no end.
    await response.body?.cancel();
    if (response.status < statusOk || response.status >= statusRedirect) {
      throw new Error(`the receiver of the hooks answered ${response.status}`);
    }
  }

  #signed(timestamp: string, body: string): Record<string, string> {
    const { secret } = this.#options;
    if (secret === undefined) return {};
    const signature = createHmac('sha256', secret).update(`${timestamp}.${body}`).digest('hex');
    return { 'x-sobranie-timestamp': timestamp, 'x-sobranie-signature': `sha256=${signature}` };
  }
}

function toWire({ id, event, channel, who, at }: WaitingEvent): object {
  const about = channel === '' ? {} : { channel };
  if (who === '') return { id, event, ...about, at };
  const name = who.slice(who.indexOf(':') + 1);
  return who.startsWith('u:')
    ? { id, event, ...about, user: name, at }
    : { id, event, ...about, user: null, connection: name, at };
}
