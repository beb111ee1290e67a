// The calls of a backend: publish, notify, tickets, users and their connections. Each is one request of the server's
// HTTP API; nothing is kept between calls.

import { Caller, type CallOptions, type Fetch } from './calls.ts';
import type { TokenClaims } from './token.ts';

export interface BackendOptions {
  /** The server's `API_KEY`. */
  readonly apiKey?: string;
  /** Milliseconds that one request may take. Default: 10,000. */
  readonly timeoutMs?: number;
  /** How often a request that failed, and may succeed later, is sent again. Default: 2. */
  readonly retries?: number;
  /** How requests reach the server. Default: the global `fetch`. */
  readonly fetch?: Fetch;
}

/** Where a publication stands in its channel; without members in an ephemeral channel, which numbers nothing. */
export interface Published {
  readonly channel: string;
  readonly epoch?: string;
  readonly offset?: number;
}

export interface PublishOptions extends CallOptions {
  /**
   * Publishing again with the same key, of at most 64 characters, publishes nothing. Unless given it is made up, so that
   * a retry after a lost answer does no harm. Ephemeral channels keep no keys.
   */
  readonly key?: string;
}

export interface TicketRequest {
  /** The user for whom the backend vouches; becomes `sub`. */
  readonly user: string;
  /** As the claim `channels` of a token: `{ 'chat:*': ['subscribe', 'publish'] }`. */
  readonly channels?: NonNullable<TokenClaims['channels']>;
  /** Further claims, for rules that read them. */
  readonly claims?: Readonly<Record<string, unknown>>;
  /** Unix seconds at which the connection ends. */
  readonly expires?: number;
}

export interface Ticket {
  readonly ticket: string;
  /** Unix seconds until which it opens a connection, once. */
  readonly expires: number;
}

export interface Message {
  readonly channel: string;
  readonly offset?: number;
  readonly data: unknown;
  /** Unix milliseconds. */
  readonly at: number;
  readonly from?: { readonly user: string | null; readonly connection: string };
}

export interface HistoryOptions extends CallOptions {
  /** Only what follows this position. */
  readonly since?: { readonly epoch: string; readonly offset: number };
  /** At most so many, up to 1,000. Default: 100. */
  readonly limit?: number;
}

export interface History {
  readonly channel: string;
  readonly epoch: string;
  /** Of the newest publication of the channel. */
  readonly offset: number;
  readonly messages: readonly Message[];
  /** False where some that were asked for are not kept any more. */
  readonly complete: boolean;
}

export interface Member {
  readonly user: string | null;
  readonly connection: string;
  readonly data: unknown;
  readonly since: number;
}

export interface Present {
  readonly channel: string;
  readonly count: number;
  readonly members: readonly Member[];
}

export interface UserState {
  readonly user: string;
  readonly online: boolean;
  readonly connections: readonly {
    readonly connection: string;
    readonly node: string;
    readonly transport: string;
    readonly since: number;
    readonly channels: readonly string[];
  }[];
  /** Nodes that did not answer in time, if there are any. */
  readonly incomplete?: readonly string[];
}

export interface ChannelCount {
  readonly channel: string;
  readonly subscribers: number;
}

/** How many connections a call reached, and the nodes that did not confirm in time, if there are any. */
export interface Reached {
  readonly user: string;
  readonly connections: number;
  readonly incomplete?: readonly string[];
}

/**
 * A Sobranie server as a backend sees it. It holds no connection and needs no `close`.
 *
 * @example
 * const backend = new Backend('https://live.example.com', { apiKey });
 * await backend.publish('orders', { id: 7, status: 'sent' });
 */
export class Backend {
  readonly #calls: Caller;

  constructor(url: string, options: BackendOptions = {}) {
    const { apiKey, timeoutMs = 10_000, retries = 2, fetch: send = (request: Request) => fetch(request) } = options;
    this.#calls = new Caller({ url, apiKey, timeoutMs, retries, fetch: send });
  }

  /**
   * Publishes JSON to a channel. Resolves with its position once the server has accepted it.
   *
   * @example
   * const { offset } = await backend.publish('chat:42', { text: 'hello' }, { key: 'message-1' });
   */
  publish(channel: string, data: unknown, { key, signal }: PublishOptions = {}): Promise<Published> {
    return this.#calls.post(['publish'], { channel, data, key: key ?? madeUpKey() }, { signal });
  }

  /**
   * Publishes the same data to up to 100 channels. Not all of them may have it when it rejects; the same call again,
   * with the same key, publishes to the others.
   *
   * @example
   * await backend.publishAll(['room:1', 'room:2'], { text: 'the rooms close at ten' });
   */
  publishAll(channels: readonly string[], data: unknown, { key, signal }: PublishOptions = {}): Promise<Published[]> {
    return this.#calls.post(['publish'], { channels, data, key: key ?? madeUpKey() }, { signal });
  }

  /**
   * Publishes to the user's own channel, `user:<id>`, which a client hears wherever that user is.
   *
   * @example
   * await backend.notify('ann', { title: 'Your order is on its way' });
   */
  notify(user: string, data: unknown, { key, signal }: PublishOptions = {}): Promise<Published> {
    return this.#calls.post(['users', user, 'notify'], { data, key: key ?? madeUpKey() }, { signal });
  }

  /**
   * A ticket: it stands where a token may, opens one connection within seconds, and tells the server who that is. Needs
   * no key that signs tokens.
   *
   * @example
   * const { ticket } = await backend.ticket({ user: 'ann', channels: { orders: ['subscribe'] } });
   */
  ticket(request: TicketRequest, { signal }: CallOptions = {}): Promise<Ticket> {
    return this.#calls.post(['ticket'], request, { signal });
  }

  /**
   * Closes the user's connections on all nodes. Clients do not come back by themselves after it.
   *
   * @example
   * await backend.disconnect('mallory');
   */
  disconnect(user: string, { signal }: CallOptions = {}): Promise<Reached> {
    return this.#calls.post(['users', user, 'disconnect'], undefined, { signal });
  }

  /**
   * Checks again, on all nodes, what the user may; subscriptions that are no longer allowed end.
   *
   * @example
   * await backend.reauthorize('ann');
   */
  reauthorize(user: string, { signal }: CallOptions = {}): Promise<{ user: string; unsubscribed: number }> {
    return this.#calls.post(['users', user, 'reauthorize'], undefined, { signal });
  }

  /**
   * Subscribes each WebSocket of the user to a channel, whatever rules say.
   *
   * @example
   * await backend.subscribe('ann', 'room:7');
   */
  subscribe(user: string, channel: string, { signal }: CallOptions = {}): Promise<Reached> {
    return this.#calls.post(['users', user, 'subscribe'], { channel }, { signal });
  }

  /**
   * Ends the user's subscriptions to a channel.
   *
   * @example
   * await backend.unsubscribe('ann', 'room:7');
   */
  unsubscribe(user: string, channel: string, { signal }: CallOptions = {}): Promise<Reached> {
    return this.#calls.post(['users', user, 'unsubscribe'], { channel }, { signal });
  }

  /**
   * A message to one connection, on whichever node it is. Rejects with `not_subscribed` where there is none.
   *
   * @example
   * await backend.send(connection, { progress: 0.5 });
   */
  send(connection: string, data: unknown, { signal }: CallOptions = {}): Promise<{ connection: string }> {
    return this.#calls.post(['connections', connection, 'send'], { data }, { signal });
  }

  /**
   * Whether a user is online, and each connection, over all nodes.
   *
   * @example
   * const { online } = await backend.user('ann');
   */
  user(user: string, { signal }: CallOptions = {}): Promise<UserState> {
    return this.#calls.get(['users', user], { signal });
  }

  /**
   * The newest publications of a channel, or what follows a position.
   *
   * @example
   * const { messages } = await backend.history('chat:42', { limit: 50 });
   */
  history(channel: string, { since, limit, signal }: HistoryOptions = {}): Promise<History> {
    const query = new URLSearchParams();
    if (limit !== undefined) query.set('limit', String(limit));
    if (since !== undefined) query.set('epoch', since.epoch);
    if (since !== undefined) query.set('offset', String(since.offset));
    return this.#calls.get(['channels', channel, 'history'], { signal, query });
  }

  /**
   * Who is in a channel.
   *
   * @example
   * const { count } = await backend.presence('chat:42');
   */
  presence(channel: string, { signal }: CallOptions = {}): Promise<Present> {
    return this.#calls.get(['channels', channel, 'presence'], { signal });
  }

  /**
   * Channels with subscribers, over all nodes.
   *
   * @example
   * for (const { channel, subscribers } of await backend.channels()) console.log(channel, subscribers);
   */
  async channels({ signal }: CallOptions = {}): Promise<readonly ChannelCount[]> {
    return (await this.#calls.get<{ channels: readonly ChannelCount[] }>(['channels'], { signal })).channels;
  }
}

function madeUpKey(): string {
  return crypto.randomUUID();
}
