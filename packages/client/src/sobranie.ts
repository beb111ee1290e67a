// The client as an application makes it: options, channels by name, the one connection behind them.

import { Channel } from './channel.ts';
import type { ChannelHost } from './channel-types.ts';
import { Clock } from './clock.ts';
import type { ConnectionEvents, ConnectionOptions, ConnectionStatus } from './connection-types.ts';
import { Connection } from './connection.ts';
import { debugLog } from './debug.ts';
import type { Listener, Stop } from './emitter.ts';
import { SobranieError } from './errors.ts';
import { parseExact, printExact, type ExactNumbers } from './exact-json.ts';
import type { TransportName } from './link.ts';
import type { ChannelName, DataOf } from './names.ts';
import { page, platformOf, quietly, type LocksLike, type Platform, type PositionStorage } from './platform.ts';
import type { Share } from './share.ts';
import { WebSocketLink } from './websocket-link.ts';

export interface SobranieOptions {
  /**
   * A token or a ticket for the user who is here now; null for nobody. Called before each connection, before the token
   * ends and after it was refused, so it must not answer from a cache that outlives the token. If it throws it is called
   * again later.
   */
  readonly token?: () => Promise<string | null> | string | null;
  /** `auto`, unless given: WebSocket, and event streams with HTTP where no WebSocket passes. */
  readonly transport?: 'auto' | TransportName;
  /**
   * One connection for all tabs that share: true for all of this server, a text for those with the same text, such as
   * the user's id. Needs Web Locks and BroadcastChannel; without them each tab has its own.
   */
  readonly share?: boolean | string;
  /** Keep positions over a reload: true for `sessionStorage`, or a storage of one's own. */
  readonly persist?: boolean | PositionStorage;
  /**
   * Asks the server to compress large messages on a WebSocket: less than half of the bytes for JSON. It does where its
   * `WS_COMPRESSION` is on and this runtime can decompress. Event streams need no option.
   */
  readonly compression?: boolean;
  /** How integers past 2^53 arrive: `string` unless given. Decimals that a double would round are strings always. */
  readonly numbers?: ExactNumbers;
  /**
   * Upper bounds of the random pauses before the attempts to reconnect, in milliseconds; the last one is that of all
   * further attempts. Unless given it is 4,500 for the first, 100 more for each next, and 10,000 in the end: no second
   * of an outage sees much more of a crowd than another one, which steps that double would bring about.
   */
  readonly backoffMs?: readonly number[];
  /** Gets each line of the debug log, which `localStorage.sobranie = 'debug'` writes to the console. */
  readonly log?: (line: string) => void;
  /** Time, chance and network to use instead of the runtime's; Node 20 has no WebSocket: `{ WebSocket }` of `ws`. */
  readonly platform?: Partial<Platform>;
}

/**
 * A client of one server. Makes no connection before it is needed: the first subscription or request does, and the last
 * one that ends lets it go.
 *
 * @example
 * const client = new Sobranie<{ posts: Change<Post>; 'chat:*': Message }>('https://example.com', {
 *   token: () => fetch('/token').then((response) => response.text()),
 * });
 * client.channel('chat:42').subscribe(({ data }) => console.log(data.text));
 */
export class Sobranie<Channels extends object = Record<string, unknown>> {
  readonly #connection: Connection;
  readonly #host: ChannelHost;
  #share: Share | undefined;
  /** Those that somebody holds; the ones in use are held by the connection. */
  readonly #channels = new Map<string, WeakRef<object>>();
  readonly #forgotten = new FinalizationRegistry<string>((name) => {
    if (this.#channels.get(name)?.deref() === undefined) this.#channels.delete(name);
  });

  /** `url` begins with `http://` or `https://`, or is relative to the page. Throws a `TypeError` for any other. */
  constructor(url: string, options: SobranieOptions = {}) {
    const { token, transport = 'auto', share = false, persist, numbers = 'string', compression } = options;
    const platform = platformOf(options.platform);
    const { WebSocket, fetch } = platform;
    const clock = new Clock(platform);
    const address = addressOf(url);
    const log = options.log ?? debugLog();
    const common = {
      url: address,
      clock,
      parse: (text: string) => {
        log(`< ${text}`);
        return parseExact(text, numbers);
      },
      print: (value: unknown) => {
        const text = printExact(value);
        log(`> ${text}`);
        return text;
      },
    };
    const own: ConnectionOptions = {
      token,
      clock,
      log,
      transports:
        transport !== 'auto' ? [transport] : !WebSocket ? ['sse'] : fetch ? ['websocket', 'sse'] : ['websocket'],
      backoffMs: options.backoffMs ?? Array.from({ length: 56 }, (_, attempt) => 4_500 + 100 * attempt),
      openLink: async (name, context) => {
        if (name === 'websocket' && WebSocket) {
          const Socket = compression ? (await import('./inflating-socket.ts')).inflating(WebSocket) : WebSocket;
          return new WebSocketLink(Socket, { ...common, ...context });
        }
        if (name !== 'sse' || !fetch) throw new SobranieError('no_transport', { message: `no ${name} here` });
        // Loaded by those alone who need it: most networks let WebSockets pass.
        const { StreamLink } = await import('./stream-link.ts');
        return new StreamLink(fetch, { ...common, ...context });
      },
    };
    // Where tabs cannot find each other each has its own.
    const locks = share !== false && 'BroadcastChannel' in globalThis && page.navigator?.locks;
    this.#connection = new Connection(locks ? this.#sharing(`sobranie ${address} ${share}`, locks, own) : own);
    this.#host = {
      connection: this.#connection,
      clock,
      storage: persist === true ? quietly(() => page.sessionStorage) : persist || undefined,
      storageKey: (channel) => `sobranie ${address} ${channel}`,
    };
  }

  /** How the connection stands; a new object with each change. */
  get status(): ConnectionStatus {
    return this.#connection.status;
  }

  /** The channel of this name; the same object for all who ask. */
  channel<Name extends ChannelName<Channels>>(name: Name): Channel<DataOf<Channels, Name>> {
    type Named = Channel<DataOf<Channels, Name>>;
    const known = this.#channels.get(name)?.deref();
    if (known !== undefined) return known as Named;
    const made: Named = new Channel(name, this.#host);
    this.#channels.set(name, new WeakRef<object>(made));
    this.#forgotten.register(made, name);
    return made;
  }

  /**
   * Listens to the connection: `status` with each change, `fallback` when event streams take the place of WebSocket,
   * `error` for what no promise tells, `message` for messages to this connection that are in no channel.
   *
   * @example
   * client.on('status', ({ state }) => showOffline(state !== 'connected'));
   */
  on<Name extends keyof ConnectionEvents>(name: Name, listener: Listener<ConnectionEvents[Name]>): Stop {
    return this.#connection.on(name, listener);
  }

  /** Connects now and stays connected, though nothing is subscribed. Undoes `close`. */
  connect(): void {
    this.#connection.connect();
  }

  /** Leaves the connection, that of all tabs too, for a new one with a fresh token: call it after a login or a logout. */
  reconnect(): void {
    this.#share?.renew();
    this.#connection.reconnect();
  }

  /**
   * Ends the connection; requests that wait are rejected with `closed`. `connect` undoes it: channels keep their listeners,
   * and a `for await` that waits goes on waiting, until its signal aborts it.
   */
  close(): void {
    this.#connection.close();
    this.#share?.close();
    this.#share = undefined;
  }

  /** By the connection of all tabs. */
  #sharing(name: string, locks: LocksLike, own: ConnectionOptions): ConnectionOptions {
    return {
      ...own,
      token: undefined,
      transports: ['websocket'],
      openLink: async (_transport, context) => {
        const { Share } = await import('./share.ts');
        return (this.#share ??= new Share(name, locks, own.clock, () => new Connection(own))).open(context);
      },
    };
  }
}

/** Over HTTP, without a slash at its end; relative addresses are those of the page. */
function addressOf(url: string): string {
  const { origin, pathname } = new URL(url, page.location?.href);
  // Of `localhost:3000` the part before the colon would be the scheme.
  if (!/^(http|ws)/.test(origin)) throw new TypeError(`no http address: ${url}`);
  return origin.replace(/^ws/, 'http') + pathname.replace(/\/(realtime\/(ws|events)\/?)?$/, '');
}
