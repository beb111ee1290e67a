// The bus over Kafka: a topic of one partition for each log, which every node reads from its end on. The log itself is in
// the database.
//
//   1. The topic is made by the first node, with a short retention. Its past is never read: a node that starts, or was
//      away, reads the log.
//   2. Records carry the log's epoch as their key, so that nodes of a log that was set back hear nothing of the former one.
//   3. Any failure ends both connections, and new ones read from the end again: a broker that was replaced, an offset that
//      is not kept any more, a leader that moved are one case.
//   4. After each loss the return of a number that the node sent to itself makes it `connected`: the log is read then, by
//      whoever hears that.
//
// Two that relay at once do no harm: numbers are given in the database, behind a lock, and what is told here was
// committed there. So Kafka's own fence between producers has nothing to keep apart.

import { isPassing, type KafkaFailure } from '../../kafka/failure.ts';
import type { KafkaTarget } from '../../kafka/target.ts';
import { RealtimeError } from '../../protocol/realtime-error.ts';
import { backoffMs } from '../../time/backoff.ts';
import { patiently } from '../../time/patiently.ts';
import { isDoneWithin } from '../../time/within.ts';
import { BusPulse } from '../bus-pulse.ts';
import type { BusEvents, LogBus, LogName, OwnBusOptions } from '../log-bus.ts';
import { KafkaLine } from './line.ts';

type Kind = 'log' | 'envelope' | 'canary';

const closeTimeoutMs = 1_000;
const reopenBackoff = { firstMs: 100, maxMs: 1_000 };
const newLine = 10;

export class KafkaBus implements LogBus {
  readonly #options: OwnBusOptions<KafkaTarget>;
  readonly #events: BusEvents;
  readonly #pulse: BusPulse;
  #topic = '';
  #key = Buffer.alloc(0);
  #line: KafkaLine | undefined;
  #staying: Promise<void> | undefined;
  #closed = false;

  constructor(options: OwnBusOptions<KafkaTarget>, events: BusEvents) {
    this.#options = options;
    this.#events = events;
    this.#pulse = new BusPulse({
      name: 'Kafka',
      clock: options.clock,
      events,
      send: (id) => this.#put('canary', String(id), () => undefined),
      renew: () => this.#line?.drop('nothing was heard'),
    });
  }

  get up(): boolean {
    return this.#pulse.up;
  }

  async start(log: LogName): Promise<void> {
    const { clock, waiting } = this.#options;
    this.#name(log);
    try {
      const first = await patiently(() => this.#open(), { mayPass: isPassing, waiting, clock });
      this.#staying = this.#stay(first);
      await this.#pulse.start();
    } catch (error) {
      await this.close();
      throw error;
    }
  }

  follow(log: LogName): void {
    if (this.#closed || !this.#name(log)) return;
    this.#line?.drop('another log is followed');
  }

  tell(notice: string): void {
    // Nobody misses what is dropped: the others look at the log.
    this.#put('log', notice, () => undefined);
  }

  send(envelope: string): Promise<void> {
    return new Promise((resolve, reject) => {
      const isTaken = this.#put('envelope', envelope, (failure) => {
        if (failure === null) resolve();
        else reject(failure);
      });
      if (!isTaken) reject(new RealtimeError('unavailable', 'Kafka takes no messages now; retry.'));
    });
  }

  probe(timeoutMs: number): Promise<void> {
    return this.#pulse.probe(timeoutMs);
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#pulse.stop();
    await this.#line?.close();
    // One that opens at this moment closes itself when it is open.
    await isDoneWithin(this.#staying ?? Promise.resolve(), closeTimeoutMs);
  }

  /** Whether it is another log than before. The topic is a secret of the database, so the names here do not show it. */
  #name({ topic, epoch }: LogName): boolean {
    const key = Buffer.from(digest(`${topic} ${epoch}`));
    if (key.equals(this.#key)) return false;
    this.#topic = `sobranie-${digest(topic)}`;
    this.#key = key;
    return true;
  }

  async #open(): Promise<KafkaLine> {
    const { target, nodeId, clock } = this.#options;
    const [topic, key] = [this.#topic, this.#key];
    const take = (value: Buffer): void => {
      if (key === this.#key && !this.#closed) this.#take(value);
    };
    const line = await KafkaLine.open({ target, clientId: `sobranie-${nodeId}`, topic, key, clock, take });
    this.#line = line;
    // While it opened, `follow` had nothing to drop.
    if (key !== this.#key) line.drop('another log is followed');
    return line;
  }

  /** Another line for each that ended, until it is closed. Never rejects. */
  async #stay(first: KafkaLine): Promise<void> {
    let line: KafkaLine | undefined = first;
    for (let failures = 0; ;) {
      if (line !== undefined) {
        this.#pulse.lose(await line.ended);
        await line.close();
        failures = 0;
      }
      if (this.#closed) return;
      try {
        line = await this.#open();
        if (this.#closed) line.drop('it is closed');
      } catch {
        // It is known to be lost; that it lasts is no news.
        line = undefined;
        await this.#options.clock.sleep(backoffMs(failures++, reopenBackoff, this.#options.clock));
      }
    }
  }

  /** False when Kafka takes nothing now; then `done` is not called. */
  #put(kind: Kind, text: string, done: (failure: KafkaFailure | null) => void): boolean {
    const sender = this.#line?.sender;
    if (sender?.hasRoom(text.length) !== true) return false;
    sender.send(Buffer.from(`${kind} ${this.#options.nodeId}\n${text}`), done);
    return true;
  }

  #take(value: Buffer): void {
    const line = value.indexOf(newLine);
    const [kind, nodeId] = value.toString('latin1', 0, line).split(' ', 2);
    const isOwn = nodeId === this.#options.nodeId;
    if (isOwn && kind !== 'canary') return;
    const text = value.toString('utf8', line + 1);
    if (kind === 'canary' && isOwn) this.#pulse.heard(Number(text));
    else if (kind === 'canary') this.#events.peer(nodeId ?? '');
    else if (kind === 'log') this.#events.appended(text);
    else if (kind === 'envelope') this.#events.envelope(text);
  }
}

function digest(text: string): string {
  return new Bun.CryptoHasher('sha256').update(text).digest('hex').slice(0, 32);
}
