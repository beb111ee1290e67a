// Who makes an HTTP call: a backend with the API key, which may do everything; a user whose token grants the action; or
// the operator with the admin key. Outside production everyone counts as backend and operator while no key is set.

import { createHash, timingSafeEqual } from 'node:crypto';
import type { Access, Authenticate, Identity } from '../core/access.ts';
import { noteFailure, refusalError, type Limits, type Refusal } from '../core/limits.ts';
import type { HubObserver } from '../core/observer.ts';
import { RealtimeError } from '../protocol/realtime-error.ts';
import type { Action } from '../rules/config.ts';
import { bearerOf } from '../http/request.ts';

export interface ServerAccessOptions {
  readonly limits: Limits;
  readonly observer: HubObserver;
  /** The address by which callers are counted; undefined while addresses are not limited. */
  readonly addressOf: ((request: Request) => string | undefined) | undefined;
  readonly apiKey: string | undefined;
  /** While no API key is set, everyone counts as a backend. */
  readonly openWithoutKey: boolean;
  readonly adminKey: string | undefined;
  /** While no admin key is set, everyone counts as the operator. */
  readonly openWithoutAdminKey: boolean;
  readonly authenticate: Authenticate;
  readonly access: Access;
  /** Whether tokens are checked. Otherwise a bearer is the API key or nothing. */
  readonly takesTokens: boolean;
}

export class ServerAccess {
  readonly #options: ServerAccessOptions;
  readonly #apiKey: Buffer | undefined;
  readonly #adminKey: Buffer | undefined;

  constructor(options: ServerAccessOptions) {
    this.#options = options;
    const { apiKey, adminKey } = options;
    this.#apiKey = apiKey === undefined ? undefined : digest(apiKey);
    this.#adminKey = adminKey === undefined ? undefined : digest(adminKey);
  }

  /** Throws `unauthorized` unless the request comes from a backend, `rate_limited` after too many wrong keys. */
  requireServer(request: Request): void {
    if (this.#isServer(request, this.#visit(request))) return;
    const given = bearerOf(request) === undefined ? '' : ' The bearer is not it.';
    throw new RealtimeError('unauthorized', `This call needs the API key.${given}`);
  }

  /** Whether the bearer is the API key. Throws `rate_limited` after too many wrong keys. */
  holdsApiKey(request: Request): boolean {
    this.#visit(request);
    return this.#apiKey !== undefined && this.#holds(request, this.#apiKey, undefined);
  }

  /** As `requireServer`, for the operator. */
  requireAdmin(request: Request): void {
    const address = this.#visit(request);
    const key = this.#adminKey;
    if (key === undefined ? this.#options.openWithoutAdminKey : this.#holds(request, key, address)) return;
    const needed = key === undefined ? 'ADMIN_KEY, which is not set' : 'the admin key';
    const given = key === undefined || bearerOf(request) === undefined ? '' : ' The bearer is not it.';
    throw new RealtimeError('unauthorized', `This call needs ${needed}.${given}`);
  }

  /**
   * Throws `unauthorized` or `forbidden` unless a backend calls, or a user who may do this on all the channels. The call
   * of a user counts as one command for each channel: throws `rate_limited` when they are too many. Resolves with the
   * user, or with undefined for a backend.
   */
  async require(request: Request, action: Action, channels: readonly string[]): Promise<Identity | undefined> {
    const { takesTokens, authenticate, access, limits } = this.#options;
    const token = bearerOf(request);
    if (!takesTokens || token === undefined) {
      this.requireServer(request);
      return undefined;
    }
    const address = this.#visit(request);
    if (this.#isServer(request, undefined)) return undefined;
    if (!isTokenShaped(token)) {
      limits.authenticationFailed(address);
      throw new RealtimeError('unauthorized', 'The bearer is neither the API key nor a signed token.');
    }
    const check = () => authenticate(token);
    const identity = await (address === undefined ? check() : noteFailure(limits, address, check));
    this.#refuse(await limits.command({ id: httpCaller, identity }, channels.length));
    for (const channel of channels) {
      if (!(await access.may(identity, action, channel))) throw new RealtimeError('forbidden');
    }
    return identity;
  }

  /** The token's user. The call counts as a command: throws `rate_limited`, and whatever `check` throws. */
  async identify(request: Request, token: string, check: Authenticate): Promise<Identity> {
    const { limits, addressOf } = this.#options;
    const address = addressOf?.(request);
    this.#refuse(limits.authentication(address));
    const identity = await (address === undefined ? check(token) : noteFailure(limits, address, () => check(token)));
    this.#refuse(await limits.command({ id: httpCaller, identity }));
    return identity;
  }

  /** The caller's address. Throws `rate_limited` if it has sent too many wrong keys or tokens. */
  #visit(request: Request): string | undefined {
    const { limits, addressOf } = this.#options;
    const address = addressOf?.(request);
    if (bearerOf(request) !== undefined) this.#refuse(limits.authentication(address));
    return address;
  }

  #refuse(refusal: Refusal | undefined): void {
    if (refusal === undefined) return;
    this.#options.observer.rateLimited(refusal.kind);
    throw refusalError(refusal);
  }

  #isServer(request: Request, address: string | undefined): boolean {
    const key = this.#apiKey;
    return key === undefined ? this.#options.openWithoutKey : this.#holds(request, key, address);
  }

  /** A wrong key counts against the address, if there is one. */
  #holds(request: Request, key: Buffer, address: string | undefined): boolean {
    const given = bearerOf(request);
    if (given === undefined) return false;
    // Digests have one length, so the time taken shows neither the content nor the length of the key.
    const isKey = timingSafeEqual(digest(given), key);
    if (!isKey) this.#options.limits.authenticationFailed(address);
    return isKey;
  }
}

/** Callers over HTTP without a user share one allowance. */
const httpCaller = 'http';

/** As tokens and tickets are. A key is not told that it is no token: its sender never meant it to be one. */
function isTokenShaped(text: string): boolean {
  return text.split('.').length === 3 || text.startsWith('ticket_');
}

function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}
