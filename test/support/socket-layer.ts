// A sync layer of its own kind, behind a Unix socket: one process holds the logs, tickets and counts, and nodes speak to
// it in lines of JSON. It is made of parts of the memory engine, and stands for any server that an engine may lead to.

import { createServer, type Server, type Socket } from 'node:net';
import type { PublicationFields } from '../../src/core/publication.ts';
import type { Appended, HistoryQuery, Outgoing } from '../../src/core/sync-adapter.ts';
import { LocalCount } from '../../src/limits/local-count.ts';
import type { Position } from '../../src/protocol/position.ts';
import { RealtimeError } from '../../src/protocol/realtime-error.ts';
import type { ChannelRule } from '../../src/rules/rules.ts';
import { MemoryAdapter } from '../../src/sync/memory/adapter.ts';
import { MemoryTickets } from '../../src/sync/memory/tickets.ts';
import type { Clock } from '../../src/time/clock.ts';
import { silentObserver } from './doubles.ts';
import { onLines } from './lines.ts';

/** What a node may ask, by name: arguments and answer. */
export interface Requests {
  publish(outgoing: Outgoing): Appended | undefined;
  subscribe(channel: string, rule: ChannelRule): Position | undefined;
  unsubscribe(channel: string): void;
  history(channel: string, rule: ChannelRule, query: HistoryQuery): unknown;
  putTicket(digest: string, text: string, seconds: number): Promise<void>;
  takeTicket(digest: string): Promise<string | undefined>;
  count(key: string, points: number, windowMs: number): { points: number; milliseconds: number };
}

export interface Request {
  readonly id: number;
  readonly name: keyof Requests;
  readonly arguments: readonly unknown[];
}

/** A line from the layer: an answer, or a publication of a subscribed channel. */
export type Line =
  | { readonly id: number; readonly result?: unknown; readonly code?: string }
  | { readonly publication: PublicationFields };

interface Node {
  readonly socket: Socket;
  readonly channels: Set<string>;
}

export class SocketLayer {
  readonly path: string;
  readonly #logs: MemoryAdapter;
  readonly #tickets: MemoryTickets;
  readonly #counts = new Map<number, LocalCount>();
  readonly #clock: Clock;
  readonly #nodes = new Set<Node>();
  #server: Server | undefined;

  constructor(path: string, clock: Clock) {
    this.path = path;
    this.#clock = clock;
    this.#logs = new MemoryAdapter({ clock, observer: silentObserver, historyBytesMax: 64 << 20 });
    this.#tickets = new MemoryTickets(clock);
    void this.#logs.start({
      publication: (publication) => this.#spread(publication),
      head: () => undefined,
      settled: () => undefined,
    });
  }

  get connections(): number {
    return this.#nodes.size;
  }

  async listen(): Promise<void> {
    const server = createServer((socket) => this.#accept(socket));
    this.#server = server;
    await new Promise<void>((resolve) => server.listen(this.path, resolve));
  }

  /** Cuts all nodes off, and lets none in until it listens again. What it holds, it keeps. */
  async goAway(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server?.close(() => resolve()));
    for (const { socket } of this.#nodes) socket.destroy();
    await closed;
  }

  #accept(socket: Socket): void {
    const node: Node = { socket, channels: new Set() };
    this.#nodes.add(node);
    socket.on('error', () => socket.destroy());
    socket.on('close', () => this.#nodes.delete(node));
    onLines(socket, (line) => void this.#answer(node, JSON.parse(line) as Request));
  }

  async #answer(node: Node, { id, name, arguments: given }: Request): Promise<void> {
    const handlers: Requests = {
      publish: (outgoing) => this.#publish(node, outgoing),
      subscribe: (channel, rule) => {
        node.channels.add(channel);
        return this.#logs.subscribe(channel, rule);
      },
      unsubscribe: (channel) => void node.channels.delete(channel),
      history: (channel, rule, query) => this.#logs.history(channel, rule, query),
      putTicket: (digest, text, seconds) => this.#tickets.put(digest, text, seconds),
      takeTicket: (digest) => this.#tickets.take(digest),
      count: (key, points, windowMs) => this.#countOf(windowMs).count(key, points),
    };
    try {
      const handle = handlers[name] as (...args: readonly unknown[]) => unknown;
      send(node, { id, result: await handle(...given) });
    } catch (error) {
      send(node, { id, code: error instanceof RealtimeError ? error.code : 'internal' });
    }
  }

  #publish(from: Node, outgoing: Outgoing): Appended | undefined {
    if (outgoing.rule.recoverable) return this.#logs.publish(outgoing);
    const { rule: _rule, key: _key, ...fields } = outgoing;
    this.#spread({ ...fields, offset: 0, epoch: '' }, from);
    return undefined;
  }

  #spread(publication: PublicationFields, except?: Node): void {
    const { channel, offset, epoch, data, at, from, except: connection } = publication;
    const plain = { channel, offset, epoch, data, at, from, except: connection };
    for (const node of this.#nodes) {
      if (node !== except && node.channels.has(channel)) send(node, { publication: plain });
    }
  }

  #countOf(windowMs: number): LocalCount {
    const count = this.#counts.get(windowMs) ?? new LocalCount(windowMs, this.#clock);
    this.#counts.set(windowMs, count);
    return count;
  }
}

function send({ socket }: Node, line: Line): void {
  socket.write(`${JSON.stringify(line)}\n`);
}
