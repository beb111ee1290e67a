// Who makes an HTTP call: a backend with the API key, which may do everything, or a user whose token grants the action.
// While no key is set outside production, everyone counts as a backend.

import { createHash, timingSafeEqual } from 'node:crypto';
import type { Access, Action, Authenticate } from '../core/access.ts';
import { RealtimeError } from '../protocol/realtime-error.ts';
import { bearerOf } from './request.ts';

export interface ServerAccessOptions {
  readonly apiKey: string | undefined;
  /** Without a key, everyone may act for the backend. */
  readonly openWithoutKey: boolean;
  readonly authenticate: Authenticate;
  readonly access: Access;
  /** Whether tokens are checked at all: else a bearer is the API key or nothing. */
  readonly takesTokens: boolean;
}

export class ServerAccess {
  readonly #options: ServerAccessOptions;
  readonly #keyDigest: Buffer | undefined;

  constructor(options: ServerAccessOptions) {
    this.#options = options;
    this.#keyDigest = options.apiKey === undefined ? undefined : digest(options.apiKey);
  }

  /** Throws `unauthorized` unless the request comes from a backend. */
  requireServer(request: Request): void {
    if (!this.#isServer(request)) throw new RealtimeError('unauthorized', 'This call needs the API key.');
  }

  /** Throws `unauthorized` or `forbidden` unless a backend calls, or a user who may do this on all the channels. */
  async require(request: Request, action: Action, channels: readonly string[]): Promise<void> {
    if (this.#isServer(request)) return;
    const token = bearerOf(request);
    const { takesTokens, authenticate, access } = this.#options;
    if (!takesTokens || token === undefined) this.requireServer(request);
    const identity = await authenticate(token);
    for (const channel of channels) {
      if (!(await access.may(identity, action, channel))) throw new RealtimeError('forbidden');
    }
  }

  #isServer(request: Request): boolean {
    if (this.#keyDigest === undefined) return this.#options.openWithoutKey;
    const given = bearerOf(request);
    // Digests are equally long, so that neither content nor length of the key shows in the time taken.
    return given !== undefined && timingSafeEqual(digest(given), this.#keyDigest);
  }
}

function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}
