// A real TCP proxy between a server and what it depends on, for tests of the network between them. It forwards bytes,
// and on demand it cuts, swallows, delays, refuses, or leads to another server behind the same address.
//
// A swallowed connection is what a pulled cable leaves behind: both ends believe that it stands, what either sends is
// taken and goes nowhere, and nobody is told when the other end gives up. It never comes back to life.
//
// Lifecycle: `startProxy`, then anything in any order, then `close`, which cuts all.

import { createServer, connect, type AddressInfo, type Server, type Socket } from 'node:net';

export interface ProxyTarget {
  readonly port: number;
  readonly host?: string;
}

/** What becomes of connections that come from now on: as usual, closed at once, or taken and never answered. */
export type ProxyMode = 'forward' | 'refuse' | 'blackhole';

interface Pair {
  readonly client: Socket;
  readonly upstream: Socket | undefined;
  swallowed: boolean;
  /** Of the upstream, what still passes before the pair is cut. */
  bytesLeft: number;
}

export class Proxy {
  readonly #server: Server;
  readonly #pairs = new Set<Pair>();
  #target: ProxyTarget;
  #mode: ProxyMode = 'forward';
  #delayMs = 0;
  #connectDelayMs = 0;
  #accepted = 0;
  /** What makes it deaf, and of each upstream the last bytes, as it may come in two pieces. */
  #mark: Buffer | undefined;
  readonly #tails = new WeakMap<Pair, Buffer>();
  #isDeaf = false;
  #unheard = 0;

  constructor(server: Server, target: ProxyTarget) {
    this.#server = server;
    this.#target = target;
    server.on('connection', (client) => this.#accept(client));
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  /** Connections that stand and are not swallowed. */
  get open(): number {
    return [...this.#pairs].filter(({ swallowed }) => !swallowed).length;
  }

  /** How many connections came so far. */
  get accepted(): number {
    return this.#accepted;
  }

  /** The same address as seen through this proxy. */
  through(url: string): string {
    const changed = new URL(url);
    changed.hostname = '127.0.0.1';
    changed.port = String(this.port);
    return changed.href;
  }

  /** Where connections that come from now on lead. */
  retarget(target: ProxyTarget): void {
    this.#target = target;
  }

  /** For connections that come from now on. */
  set mode(mode: ProxyMode) {
    this.#mode = mode;
  }

  /** Milliseconds that everything needs more in each direction from now on. */
  set delayMs(milliseconds: number) {
    this.#delayMs = milliseconds;
  }

  /**
   * Connections that come from now on are led on after a random time up to this many milliseconds: who came later may be
   * there earlier.
   */
  set connectDelayMs(milliseconds: number) {
    this.#connectDelayMs = milliseconds;
  }

  /** Resets every connection on both sides; answers how many there were. */
  cut(): number {
    const pairs = [...this.#pairs];
    for (const pair of pairs) this.#reset(pair);
    return pairs.length;
  }

  #reset(pair: Pair): void {
    this.#pairs.delete(pair);
    pair.client.resetAndDestroy();
    pair.upstream?.resetAndDestroy();
  }

  /** Swallows all that goes through the present connections, or those with these ports, for ever; answers how many. */
  swallow(upstreamPorts?: readonly number[]): number {
    const pairs = [...this.#pairs].filter(
      ({ swallowed, upstream }) => !swallowed && (upstreamPorts?.includes(upstream?.localPort ?? 0) ?? true),
    );
    for (const pair of pairs) {
      pair.swallowed = true;
      // What was paused for want of room has none to wait for any more.
      pair.client.resume();
      pair.upstream?.resume();
    }
    return pairs.length;
  }

  /** Lets so many more bytes of the upstream through on each present connection, and resets it: in the midst of a frame. */
  cutAfter(bytes: number): void {
    for (const pair of this.#pairs) pair.bytesLeft = bytes;
  }

  /**
   * Once these bytes have come from the upstream, and were let through, nothing that clients send goes on any more, on
   * present connections and on those that come, until `hear`.
   */
  deafAfter(mark: string): void {
    this.#mark = Buffer.from(mark);
  }

  /** Answers how many bytes were not heard. */
  hear(): number {
    this.#mark = undefined;
    this.#isDeaf = false;
    return this.#unheard;
  }

  async close(): Promise<void> {
    this.cut();
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#server.close(() => resolve());
    await promise;
  }

  #accept(client: Socket): void {
    this.#accepted++;
    if (this.#mode === 'refuse') {
      client.on('error', ignoreReset);
      client.resetAndDestroy();
      return;
    }
    if (this.#connectDelayMs === 0) return this.#pair(client);
    client.on('error', ignoreReset);
    client.pause();
    setTimeout(() => {
      if (client.destroyed) return;
      this.#pair(client);
      client.resume();
    }, Math.random() * this.#connectDelayMs);
  }

  #pair(client: Socket): void {
    const upstream = this.#mode === 'blackhole' ? undefined : connect({ host: '127.0.0.1', ...this.#target });
    const pair: Pair = { client, upstream, swallowed: upstream === undefined, bytesLeft: Infinity };
    this.#pairs.add(pair);
    this.#lead(pair, client, upstream);
    if (upstream !== undefined) this.#lead(pair, upstream, client);
  }

  #lead(pair: Pair, from: Socket, to: Socket | undefined): void {
    from.setNoDelay(true);
    from.on('error', ignoreReset);
    // What was delayed is not overtaken by what comes after the delay: the order of bytes is all that TCP promises.
    const waiting: { readonly at: number; readonly run: () => void }[] = [];
    const runDue = (): void => {
      while (waiting[0] !== undefined && waiting[0].at <= performance.now()) waiting.shift()?.run();
      if (waiting[0] !== undefined) setTimeout(runDue, Math.ceil(waiting[0].at - performance.now()));
    };
    const inOrder = (run: () => void): void => {
      const delayMs = this.#delayMs;
      if (delayMs === 0 && waiting.length === 0) return run();
      const at = Math.max(performance.now() + delayMs, waiting.at(-1)?.at ?? 0);
      if (waiting.push({ at, run }) === 1) setTimeout(runDue, delayMs);
    };
    from.on('data', (chunk: Buffer) => {
      inOrder(() => {
        if (pair.swallowed || to === undefined || to.destroyed) return;
        if (this.#isDeaf && from === pair.client) {
          this.#unheard += chunk.length;
          return;
        }
        if (this.#mark !== undefined && from === pair.upstream) this.#look(pair, chunk, this.#mark);
        if (from === pair.upstream && chunk.length > pair.bytesLeft) {
          to.write(chunk.subarray(0, pair.bytesLeft), () => this.#reset(pair));
          pair.bytesLeft = 0;
          return;
        }
        if (from === pair.upstream) pair.bytesLeft -= chunk.length;
        if (!to.write(chunk) && waiting.length === 0) {
          from.pause();
          to.once('drain', () => from.resume());
        }
      });
    });
    from.on('close', () => {
      if (pair.swallowed) {
        // The other end is not told. Once both are gone nothing is left to keep.
        if (to === undefined || to.destroyed) this.#pairs.delete(pair);
      } else inOrder(() => this.#end(pair));
    });
  }

  #look(pair: Pair, chunk: Buffer, mark: Buffer): void {
    const all = Buffer.concat([this.#tails.get(pair) ?? Buffer.alloc(0), chunk]);
    if (all.includes(mark)) this.#isDeaf = true;
    this.#tails.set(pair, all.subarray(-mark.length));
  }

  #end(pair: Pair): void {
    this.#pairs.delete(pair);
    for (const socket of [pair.client, pair.upstream]) {
      if (socket === undefined || socket.destroyed) continue;
      // An orderly end lets what was written before it arrive.
      if (socket.writableLength > 0) socket.end();
      else socket.destroy();
    }
  }
}

/** Listens on a free port of 127.0.0.1. */
export async function startProxy(target: ProxyTarget): Promise<Proxy> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const server = createServer().once('error', reject);
  const proxy = new Proxy(server, target);
  server.listen({ port: 0, host: '127.0.0.1' }, () => resolve());
  await promise;
  return proxy;
}

/** Broken connections are this program's business. */
function ignoreReset(): void {
  return undefined;
}
