// The sync adapter over PostgreSQL: the log is a table, numbers are given behind a row lock, nodes hear of it by a bus:
// NOTIFY, or one beside the database.
//
//   publish      appended to the log in batches; what was committed is handed to this node's reader at once
//   subscribe    the channel becomes of interest, then its head is read: every later row will be seen
//   other nodes  a notification says that the log grew, and carries what is little; if it does not, or a notification
//                was lost, the reader reads what follows its last row
//   reconnect    notifications were lost meanwhile, so the log is read and the hub gets the heads of all channels
//   ephemeral    an envelope per publication through the bus, marked with the node that has delivered it already
//
// With a bus of its own the database is kept from notifying, and this node tells the others after the commit. What is lost
// between the two, or on the bus, is found by the look at the log that every node takes each second. Nodes that are not on
// the bus are reached by the database's notifications, see `bridged-bus.ts`.

import { backoffMs } from '../../time/backoff.ts';
import type { Clock } from '../../time/clock.ts';
import { isPassingFailure, patiently } from '../../time/patiently.ts';
import { within } from '../../time/within.ts';
import type { SyncObserver } from '../../core/observer.ts';
import { Publication } from '../../core/publication.ts';
import type { ChannelRule } from '../../rules/rules.ts';
import type {
  Appended,
  HistoryPage,
  HistoryQuery,
  Outgoing,
  SyncAdapter,
  SyncEvents,
  SyncHealth,
  SyncTraits,
} from '../../core/sync-adapter.ts';
import { unavailable, type Database } from '../../database/connect.ts';
import type { LogRow } from '../../database/log-row.ts';
import type { Position } from '../../protocol/position.ts';
import { RealtimeError } from '../../protocol/realtime-error.ts';
import type { BusEvents, LogBus, OwnBus } from '../log-bus.ts';
import { PostgresAppender } from './appender.ts';
import { BridgedBus } from './bridged-bus.ts';
import { besideMark, unnumbered } from './envelope.ts';
import { headsAtOnceMax, PostgresHeads } from './heads.ts';
import { PostgresHistories } from './histories.ts';
import { PostgresListener } from './listener.ts';
import { carriedRows, noticesOf, parseNotice, plainNotice } from './notice.ts';
import { readHeads, readLogState, type LogState } from './queries.ts';
import { PostgresReader } from './reader.ts';

export interface PostgresAdapterOptions {
  /** For queries; may lead through a pooler. */
  readonly sql: Database;
  /**
   * As `sql`, for heads and histories alone, which may be many and long: nothing else waits for them. The adapter ends
   * it.
   */
  readonly reads: Database;
  /**
   * A new client of a single connection, for LISTEN and for appending; it must not lead through a pooler. Without an
   * answer for `answerSeconds` its connection is given up.
   */
  readonly connectDirect: (answerSeconds?: number) => Database;
  readonly nodeId: string;
  /** Of `sql`'s connections and of this process's relay: notifications carry it. */
  readonly applicationName: string;
  readonly clock: Clock;
  readonly observer: SyncObserver;
  readonly log: (message: string, error: unknown) => void;
  /** In place of the database's notifications. */
  readonly bus?: OwnBus | undefined;
  /** So many other nodes are not on `bus`, and are reached by the database's notifications; 0 when all are on it again. */
  readonly far?: ((count: number) => void) | undefined;
}

/** What hears of envelopes that are no publications. */
export interface Beside {
  message(text: string): void;
  /** Notifications may have been missed, or the database may be another. */
  interrupted(): void;
}

const answerTimeoutMs = 1_000;
/** Nothing else notices that the appender's connection alone is half open. Until then no publication is accepted. */
const appenderAnswerSeconds = 4;
/** A notification comes with the commit or not at all. Of a bus beside it, more can be lost. */
const [safetyReadEveryMs, safetyReadBesideMs] = [5_000, 1_000];
const resumeBackoff = { firstMs: 250, maxMs: 1_000 };

export class PostgresAdapter implements SyncAdapter {
  readonly name: string;
  readonly traits: SyncTraits = { shared: true, durable: true };
  readonly #options: PostgresAdapterOptions;
  readonly #bus: LogBus;
  readonly #appender: PostgresAppender;
  readonly #heads: PostgresHeads;
  readonly #histories: PostgresHistories;
  #events: SyncEvents | undefined;
  #reader: PostgresReader | undefined;
  #logEpoch = '';
  #beside: Beside | undefined;
  #connections = 0;
  #resuming: Promise<void> | undefined;
  /** The listener reconnected again while this node was catching up. */
  #resumeAgain = false;
  #safety: ReturnType<typeof setInterval> | undefined;

  constructor(options: PostgresAdapterOptions) {
    this.#options = options;
    this.name = options.bus?.name ?? 'postgres';
    this.#appender = new PostgresAppender(
      options.connectDirect(appenderAnswerSeconds),
      (rows) => {
        options.observer.message(this.name, 'out', rows.length);
        void this.#reader?.hand(rows);
      },
      (error) => {
        this.#failed('publications could not be appended', error);
        // The batch may have been committed all the same; then nobody else hands it over.
        this.#reader?.catchUp();
      },
      { quiet: options.bus !== undefined },
    );
    const { connectDirect: connect, sql, reads, nodeId, clock, bus } = options;
    this.#heads = new PostgresHeads(reads, (error) => this.#failed('heads could not be read', error));
    this.#histories = new PostgresHistories(reads, clock);
    const events: BusEvents = {
      connected: () => this.#connected(),
      lost: (error) => this.#lost(error),
      appended: (notice) => this.#appendedBy(notice),
      envelope: (text) => this.#takeEnvelope(text),
      peer: () => undefined,
    };
    const listener = (heard: BusEvents): PostgresListener =>
      new PostgresListener({ connect, sql, nodeId, clock }, heard);
    this.#bus = bus === undefined ? listener(events) : this.#bridged(bus, listener, events);
  }

  #bridged(own: OwnBus, listener: (heard: BusEvents) => PostgresListener, events: BusEvents): BridgedBus {
    const { nodeId, clock, far } = this.#options;
    const options = {
      own,
      listener,
      nodeId,
      clock,
      missed: () => void this.#resume(),
      failed: (error: unknown) => this.#failed('notifications of the database are not heard', error),
      far: (count: number) => far?.(count),
    };
    return new BridgedBus(options, events);
  }

  async start(events: SyncEvents): Promise<void> {
    const { sql, reads, clock, observer, log, applicationName } = this.#options;
    this.#events = events;
    const look = async (): Promise<LogState> => {
      const found = await readLogState(sql);
      // Opened before the first subscriber comes: a crowd would wait for each round trip of a connection's beginning.
      await Promise.all(Array.from({ length: reads.options.max }, () => readHeads(reads, [])));
      return found;
    };
    const waiting = (error: unknown): void => log('waiting for the database', error);
    const state = await patiently(look, { mayPass: isPassingFailure, waiting, clock });
    this.#logEpoch = state.epoch;
    const tell = (rows: readonly LogRow[]): void => {
      for (const notice of noticesOf(rows, applicationName)) this.#bus.tell?.(notice);
    };
    const options = { sql, clock, observer, log, name: this.name };
    this.#reader = new PostgresReader(this.#bus.tell === undefined ? options : { ...options, tell }, events, state.seq);
    await this.#bus.start(state);
    // Correctness never rests on a notification or a hand-over alone.
    this.#safety = setInterval(
      () => void this.#checkLog(),
      this.#options.bus === undefined ? safetyReadEveryMs : safetyReadBesideMs,
    );
  }

  /** It takes what the relay of this process has committed. There is none before `start`. */
  get reader(): PostgresReader {
    if (this.#reader === undefined) throw new RealtimeError('unavailable', 'The sync layer is not started.');
    return this.#reader;
  }

  /** The log may have another epoch. Resolves when this node has followed it: what is relayed from then on is heard. */
  async follow(): Promise<void> {
    if (!(await this.#checkLog())) await this.#resume();
  }

  publish(outgoing: Outgoing): Promise<Appended | undefined> {
    if (outgoing.rule.recoverable) return this.#appender.append(outgoing);
    return this.#sendEphemeral(outgoing);
  }

  subscribe(channel: string, rule: ChannelRule): Promise<Position> | undefined {
    this.reader.add(channel);
    if (!rule.recoverable) return undefined;
    return this.#heads.ask(channel);
  }

  unsubscribe(channel: string): void {
    this.#reader?.remove(channel);
  }

  history(channel: string, rule: ChannelRule, query: HistoryQuery, internal = false): Promise<HistoryPage> {
    return this.#histories.read({ channel, rule, query, internal });
  }

  /** What else travels by the notifications of this log. */
  hearBeside(beside: Beside): void {
    this.#beside = beside;
  }

  health(): SyncHealth {
    return { up: this.#bus.up };
  }

  async probe(timeoutMs: number): Promise<void> {
    await this.#bus.probe(timeoutMs);
  }

  async close(): Promise<void> {
    clearInterval(this.#safety);
    await this.#appender.close();
    this.#events = undefined;
    await this.#bus.close();
    await this.#reader?.close();
    await this.#options.reads.end({ timeout: 1 });
    this.#options.observer.up(this.name, false);
  }

  // Notifications

  #appendedBy(payload: string): void {
    const reader = this.#reader;
    const { seq, writer } = parseNotice(payload);
    // What this node has written itself is handed over without a detour.
    if (reader === undefined || writer === this.#options.applicationName || seq <= reader.last) return;
    try {
      const rows = carriedRows(payload, seq);
      // A hand-over that does not follow directly on what was delivered makes the reader read the log.
      if (rows.length > 0) reader.offer(rows);
      else reader.catchUp();
    } catch (error) {
      this.#failed('a notification of the log could not be read', error);
      reader.catchUp();
    }
  }

  #connected(): void {
    const { observer } = this.#options;
    observer.up(this.name, true);
    if (this.#connections++ === 0) return;
    observer.reconnected(this.name);
    // What this node told the others meanwhile was lost with the connection.
    this.#bus.tell?.(plainNotice(this.#reader?.last ?? 0, this.#options.applicationName));
    void this.#resume();
  }

  /** One run at a time. A reconnect during a run repeats it. */
  #resume(): Promise<void> {
    this.#resumeAgain = true;
    this.#beside?.interrupted();
    if (this.#events === undefined) return Promise.resolve();
    this.#resuming ??= this.#keepResuming();
    return this.#resuming;
  }

  /** Repeats until it succeeds: nothing else reports a log that was lost. */
  async #keepResuming(): Promise<void> {
    const { clock } = this.#options;
    let failures = 0;
    while (this.#resumeAgain && this.#events !== undefined) {
      this.#resumeAgain = false;
      try {
        await this.#catchUpAll();
        failures = 0;
      } catch (error) {
        this.#failed('could not catch up after a reconnect; trying again', error);
        this.#resumeAgain = true;
        await clock.sleep(backoffMs(failures++, resumeBackoff, clock));
      }
    }
    this.#resuming = undefined;
  }

  /** Reads what was missed, then tells the hub where every channel stands: also those whose rows are trimmed by now. */
  async #catchUpAll(): Promise<void> {
    const reader = this.#reader;
    if (reader === undefined) return;
    const state = await readLogState(this.#options.sql);
    this.#bus.follow(state);
    // A database that was set up again, or restored to an earlier state, has fewer rows than were read already.
    if (state.epoch !== this.#logEpoch || state.seq < reader.last) reader.restart(state.seq);
    this.#logEpoch = state.epoch;
    reader.catchUp();
    await reader.idle();
    await this.#tellHeads([...reader.interest]);
  }

  /**
   * Another database may stand behind the same address, although the listener lost no connection. False when nobody could
   * tell.
   */
  async #checkLog(): Promise<boolean> {
    try {
      const { epoch } = await inTime(readLogState(this.#options.sql));
      if (epoch === this.#logEpoch) this.#reader?.catchUp();
      else await this.#resume();
      return true;
    } catch (error) {
      this.#failed('the log could not be looked at', error);
      return false;
    }
  }

  async #tellHeads(channels: readonly string[]): Promise<void> {
    for (let start = 0; start < channels.length; start += headsAtOnceMax) {
      const heads = await readHeads(this.#options.reads, channels.slice(start, start + headsAtOnceMax));
      for (const [channel, head] of heads) this.#events?.head(channel, head);
    }
  }

  #lost(error: unknown): void {
    this.#options.observer.up(this.name, false);
    this.#failed('the connection to the other nodes is lost; reconnecting', error);
  }

  // Ephemeral publications

  async #sendEphemeral({ channel, data, at, from, except }: Outgoing): Promise<undefined> {
    const head = JSON.stringify({ channel, at, from, except });
    try {
      await inTime(this.#bus.send(`${head}\n${data}`));
    } catch (error) {
      // The hub tells the sender nothing of it: this node's subscribers have the publication.
      this.#options.observer.failed(this.name);
      throw unavailable(error);
    }
    this.#options.observer.message(this.name, 'out', 1);
    return undefined;
  }

  #takeEnvelope(text: string): void {
    const { envelope: payload } = unnumbered(text);
    if (payload.startsWith(besideMark)) {
      this.#takeBeside(payload.slice(besideMark.length));
      return;
    }
    const line = payload.indexOf('\n');
    if (line === -1) return;
    let head: { channel: string; at: number; from?: { user: string | null; connection: string }; except?: string };
    try {
      head = JSON.parse(payload.slice(0, line)) as typeof head;
    } catch (error) {
      this.#failed('a notification of another node could not be read', error);
      return;
    }
    if (this.#reader?.interest.has(head.channel) !== true) return;
    this.#options.observer.message(this.name, 'in', 1);
    this.#events?.publication(new Publication({ ...head, offset: 0, epoch: '', data: payload.slice(line + 1) }));
  }

  #takeBeside(text: string): void {
    try {
      this.#beside?.message(text);
    } catch (error) {
      this.#failed('a notification of the database could not be read', error);
    }
  }

  #failed(message: string, error: unknown): void {
    this.#options.observer.failed(this.name);
    this.#options.log(message, error);
  }
}

/** The driver would wait for as long as the database is away. The caller gets `unavailable` after a second. */
async function inTime<Value>(answer: Promise<Value>): Promise<Value> {
  try {
    return await within(answer, answerTimeoutMs, 'the answer of the database');
  } catch (error) {
    throw unavailable(error);
  }
}
