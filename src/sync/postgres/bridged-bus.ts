// A bus of its own, and the database's notifications beside it, to which every node listens for changes of presence. So
// nodes that are not on one bus hear each other all the same: while they change from one to another, where two of them
// were given different ones, and while the bus is away.
//
//   1. Each node shows every few seconds that it lives, on its bus and by the database.
//   2. While a node is heard by the database alone, or the bus is away, what this node sends goes both ways.
//   3. Whoever gets an envelope both ways takes the first: they are numbered.
//   4. A far node hears only how far the log reaches, and reads it itself.

import type { Clock } from '../../time/clock.ts';
import type { BusEvents, LogBus, LogName, OwnBus } from '../log-bus.ts';
import { numbered, unnumbered } from './envelope.ts';
import { FarNodes } from './far-nodes.ts';
import { HeardNumbers } from './heard-numbers.ts';
import type { PostgresListener } from './listener.ts';
import { parseNotice, plainNotice } from './notice.ts';

export interface BridgedBusOptions {
  readonly own: OwnBus;
  readonly listener: (events: BusEvents) => PostgresListener;
  readonly nodeId: string;
  readonly clock: Clock;
  /** The database's notifications were lost for a while. */
  readonly missed: () => void;
  /** The database does not notify. */
  readonly failed: (error: unknown) => void;
  /** So many nodes are beyond the bus. */
  readonly far: (count: number) => void;
}

export class BridgedBus implements LogBus {
  readonly #options: BridgedBusOptions;
  readonly #events: BusEvents;
  readonly #own: LogBus;
  readonly #database: PostgresListener;
  readonly #heard = new HeardNumbers();
  #far: FarNodes | undefined;
  #sent = 0;
  #connections = 0;

  constructor(options: BridgedBusOptions, events: BusEvents) {
    this.#options = options;
    this.#events = events;
    this.#own = options.own.open({
      connected: () => events.connected(),
      lost: (error) => events.lost(error),
      appended: (notice) => events.appended(notice),
      envelope: (text) => this.#take(text),
      peer: (node) => this.#far?.heardOnBus(node),
    });
    this.#database = options.listener({
      connected: () => {
        if (this.#connections++ > 0) options.missed();
      },
      lost: (error) => options.failed(error),
      appended: (notice) => events.appended(notice),
      envelope: (text) => this.#take(text),
      peer: (node) => this.#far?.heardByDatabase(node),
    });
  }

  get up(): boolean {
    return this.#own.up;
  }

  /** The bus first: whoever is heard by the database can be heard on the bus by then. */
  async start(log: LogName): Promise<void> {
    const { clock, far } = this.#options;
    try {
      await this.#own.start(log);
      this.#far = new FarNodes({ clock, changed: far });
      await this.#database.start(log);
    } catch (error) {
      await this.close();
      throw error;
    }
  }

  follow(log: LogName): void {
    this.#own.follow(log);
    this.#database.follow(log);
  }

  tell(notice: string): void {
    this.#own.tell?.(notice);
    if (!this.#isBridged) return;
    const { seq, writer } = parseNotice(notice);
    this.#database.notifyLog(plainNotice(seq, writer));
  }

  send(envelope: string): Promise<void> {
    const text = numbered(this.#options.nodeId, ++this.#sent, envelope);
    return this.#isBridged ? this.#sendBothWays(text) : this.#own.send(text);
  }

  probe(timeoutMs: number): Promise<void> {
    return this.#own.probe(timeoutMs);
  }

  async close(): Promise<void> {
    await Promise.all([this.#own.close(), this.#database.close()]);
  }

  get #isBridged(): boolean {
    return this.#far?.any === true || !this.#own.up;
  }

  async #sendBothWays(text: string): Promise<void> {
    const near = sendBy(this.#own, text);
    const all = sendBy(this.#database, text);
    // The bus itself reports that it is away. Whoever is near listens to the database too.
    near.catch(() => undefined);
    await all;
  }

  #take(text: string): void {
    const { envelope, from } = unnumbered(text);
    if (from !== undefined && !this.#heard.isNew(from.sender, from.number)) return;
    this.#events.envelope(envelope);
  }
}

/** Begins at once, and never throws. */
async function sendBy(bus: LogBus, text: string): Promise<void> {
  await bus.send(text);
}
