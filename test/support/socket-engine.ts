// An engine over the socket layer, and its row: all that a server must be given to run on it.

import { createConnection, type Socket } from 'node:net';
import { engine } from '../../src/app/engine.ts';
import { IntoAdapter } from '../../src/changes/into-adapter.ts';
import { Publication } from '../../src/core/publication.ts';
import type {
  Appended,
  HistoryPage,
  HistoryQuery,
  Outgoing,
  SyncAdapter,
  SyncEvents,
  SyncHealth,
} from '../../src/core/sync-adapter.ts';
import { MemoryMembers, MemoryPresence } from '../../src/sync/memory/presence.ts';
import { errorCodes, type ErrorCode } from '../../src/protocol/codes.ts';
import type { Position } from '../../src/protocol/position.ts';
import { RealtimeError } from '../../src/protocol/realtime-error.ts';
import type { ChannelRule } from '../../src/rules/rules.ts';
import { matching } from '../../src/settings/kinds.ts';
import { optional } from '../../src/settings/setting.ts';
import type { EngineParts, OpenEngine } from '../../src/sync/engine.ts';
import { backoffMs } from '../../src/time/backoff.ts';
import type { Clock } from '../../src/time/clock.ts';
import { within } from '../../src/time/within.ts';
import { onLines } from './lines.ts';
import type { Line, Requests } from './socket-layer.ts';

/** One connection to the layer, made again whenever it is lost. */
class Link {
  readonly #path: string;
  readonly #clock: Clock;
  readonly #waiting = new Map<number, { resolve(result: unknown): void; reject(error: unknown): void }>();
  #socket: Socket | undefined;
  #count = 0;
  #closed = false;
  onPublication: (publication: Publication) => void = () => undefined;
  onRenewed: () => Promise<void> = () => Promise.resolve();

  constructor(path: string, clock: Clock) {
    this.#path = path;
    this.#clock = clock;
  }

  get up(): boolean {
    return this.#socket !== undefined;
  }

  async open(): Promise<void> {
    const socket = createConnection(this.#path);
    await new Promise<void>((resolve, reject) => socket.once('connect', resolve).once('error', reject));
    if (this.#closed) return void socket.destroy();
    this.#socket = socket;
    socket.on('close', () => this.#lose());
    onLines(socket, (line) => this.#take(JSON.parse(line) as Line));
  }

  async ask<Name extends keyof Requests>(
    name: Name,
    ...args: Parameters<Requests[Name]>
  ): Promise<Awaited<ReturnType<Requests[Name]>>> {
    if (this.#socket === undefined) throw new RealtimeError('unavailable');
    const id = ++this.#count;
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    this.#waiting.set(id, { resolve, reject });
    this.#socket.write(`${JSON.stringify({ id, name, arguments: args })}\n`);
    try {
      return (await within(promise, 1_000, name)) as Awaited<ReturnType<Requests[Name]>>;
    } catch (cause) {
      throw cause instanceof RealtimeError ? cause : new RealtimeError('unavailable', undefined, { cause });
    } finally {
      this.#waiting.delete(id);
    }
  }

  close(): void {
    this.#closed = true;
    this.#socket?.destroy();
    this.#socket = undefined;
  }

  #take(line: Line): void {
    if ('publication' in line) return this.onPublication(new Publication(line.publication));
    const { id, result, code } = line;
    if (code === undefined) this.#waiting.get(id)?.resolve(result);
    else this.#waiting.get(id)?.reject(new RealtimeError(code in errorCodes ? (code as ErrorCode) : 'internal'));
  }

  #lose(): void {
    this.#socket = undefined;
    for (const { reject } of this.#waiting.values()) reject(new RealtimeError('unavailable'));
    if (!this.#closed) void this.#reopen();
  }

  async #reopen(): Promise<void> {
    for (let tries = 0; !this.#closed && !this.up; tries++) {
      await this.#clock.sleep(backoffMs(tries, { firstMs: 20, maxMs: 500 }, this.#clock));
      await this.open()
        .then(this.onRenewed)
        .catch(() => undefined);
    }
  }
}

class SocketAdapter implements SyncAdapter {
  readonly name = 'socket';
  readonly traits = { shared: true, durable: true };
  readonly #link: Link;
  readonly #channels = new Map<string, ChannelRule>();
  #events: SyncEvents | undefined;

  constructor(link: Link) {
    this.#link = link;
    link.onPublication = (publication) => {
      if (this.#channels.has(publication.channel)) this.#events?.publication(publication);
    };
    link.onRenewed = async () => {
      for (const [channel, rule] of this.#channels) {
        const head = await link.ask('subscribe', channel, rule);
        if (head !== undefined) this.#events?.head(channel, head);
      }
    };
  }

  start(events: SyncEvents): Promise<void> {
    this.#events = events;
    return Promise.resolve();
  }

  publish(outgoing: Outgoing): Promise<Appended | undefined> {
    return this.#link.ask('publish', outgoing);
  }

  subscribe(channel: string, rule: ChannelRule): Promise<Position | undefined> {
    this.#channels.set(channel, rule);
    return this.#link.ask('subscribe', channel, rule);
  }

  unsubscribe(channel: string): void {
    if (this.#channels.delete(channel)) this.#link.ask('unsubscribe', channel).catch(() => undefined);
  }

  async history(channel: string, rule: ChannelRule, query: HistoryQuery): Promise<HistoryPage> {
    const page = (await this.#link.ask('history', channel, rule, query)) as HistoryPage;
    return { ...page, publications: page.publications.map((fields) => new Publication(fields)) };
  }

  health(): SyncHealth {
    return { up: this.#events !== undefined && this.#link.up };
  }

  async probe(): Promise<void> {
    await this.#link.ask('takeTicket', 'none');
  }

  close(): Promise<void> {
    this.#events = undefined;
    this.#link.close();
    return Promise.resolve();
  }
}

async function open(path: string, { clock }: EngineParts): Promise<OpenEngine> {
  const link = new Link(path, clock);
  await link.open();
  return {
    adapter: new SocketAdapter(link),
    tickets: {
      put: (digest, text, seconds) => link.ask('putTicket', digest, text, seconds),
      take: (digest) => link.ask('takeTicket', digest),
    },
    limits: { count: (key, points, windowMs) => link.ask('count', key, points, windowMs) },
    // Of each node alone: the layer knows nothing of members.
    presence: new MemoryPresence(new MemoryMembers(clock)),
    destination: (ports) => new IntoAdapter(ports),
  };
}

export const socketEngine = engine({
  name: 'socket',
  shared: true,
  settings: {
    path: optional('SOCKET_PATH', matching(/^\//, 'an absolute path'), 'none', 'Path of the layer’s socket.'),
  },
  url: 'path',
  open: ({ path }, parts) => open(path ?? '', parts),
});
