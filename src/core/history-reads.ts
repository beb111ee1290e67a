// How this node reads the log. `HistoryReads` is the one way to it: how many reads are under way at once, and for each
// user, so that a user who asks for much delays nobody else. A log in this process's memory answers at once, and needs
// none of it. An event stream is opened once: a browser gives up for good when it is refused. So it waits longer for its
// turn than a command does, which can be sent again.
//
// `MissedHistory` is what subscribers of one channel have missed: from this node's memory where it has seen and kept it,
// else from the log.
//
// `SharedRead` reads one channel for all who lack a part of it: one read at a time, and each takes from its page what it
// lacks. A read begins where the one who has waited longest stands, or below, if somebody stands a little lower. Whoever
// came while the read was under way may take from its page as well: what the log held does not change. Only a position
// past the page's head says nothing then, since the log may have grown meanwhile. A read that fails is tried once more
// where many wait for it: each of them would come back and ask for the same.

import type { Position } from '../protocol/position.ts';
import type { ChannelRule } from '../rules/rules.ts';
import { RealtimeError } from '../protocol/realtime-error.ts';
import type { Clock } from '../time/clock.ts';
import type { Kept } from './kept.ts';
import type { MaybePromise } from './maybe-promise.ts';
import type { HubObserver } from './observer.ts';
import type { PageBudget } from './page-budget.ts';
import type { RecoveryLimits } from './recovery.ts';
import type { HistoryPage, HistoryQuery, SyncAdapter } from './sync-adapter.ts';
import { Turns } from './turns.ts';

/** Who reads the log. */
export interface Reader {
  /** Whom it counts for where turns are taken, see `turns.ts`. */
  readonly account: string;
  /** This node itself, which reads past what the rule keeps. */
  readonly internal?: boolean;
  /** Nobody would ask again, so its turn is waited for longer. */
  readonly asksOnce?: boolean;
}

/** This node itself, to fill holes. */
export const nodeReader: Reader = { account: '\u0000node', internal: true };
/** On whose account the application's backend reads. */
export const backendAccount = '\u0000backend';

/** Each brings a page, so this bounds the memory of what is under way. */
const turnLimits = { total: 32, each: 8 };
const turnMsMax = 3_000;
/** Clients and gateways give an opening ten seconds. */
const turnMsMaxOnce = 9_000;

export interface HistoryReadsPorts {
  readonly adapter: SyncAdapter;
  readonly observer: HubObserver;
}

export class HistoryReads {
  readonly #ports: HistoryReadsPorts;
  readonly #turns = new Turns(turnLimits);
  /** Reads that wait for their turn: whoever asks for the same meanwhile shares the answer. */
  readonly #waiting = new Map<string, Promise<HistoryPage>>();

  constructor(ports: HistoryReadsPorts) {
    this.#ports = ports;
  }

  /** Reads a stretch of the log. Rejects with `unavailable` when it cannot be reached, or the turn does not come in time. */
  read(channel: string, rule: ChannelRule, query: HistoryQuery, reader: Reader): MaybePromise<HistoryPage> {
    const { adapter, observer } = this.#ports;
    const { account, internal = false } = reader;
    const begin = (): MaybePromise<HistoryPage> => {
      observer.historyRead('log');
      return adapter.history(channel, rule, query, internal);
    };
    if (!adapter.traits.shared) return begin();
    const { since, limit, bytesMax } = query;
    const key = [channel, internal, since?.epoch, since?.offset, limit, bytesMax].join(' ');
    const waiting = this.#waiting.get(key);
    if (waiting !== undefined) return waiting;
    const turn = this.#takeTurn(reader);
    if (turn === undefined) return this.#inTurn(account, begin);
    const read = turn.finally(() => this.#waiting.delete(key)).then(() => this.#inTurn(account, begin));
    this.#waiting.set(key, read);
    return read;
  }

  #takeTurn({ account, asksOnce = false }: Reader): Promise<void> | undefined {
    const late = (cause: unknown): never => {
      throw new RealtimeError('unavailable', 'Too much of the history is being read; retry.', { cause });
    };
    try {
      return this.#turns.take(account, false, asksOnce ? turnMsMaxOnce : turnMsMax)?.catch(late);
    } catch (error) {
      return late(error);
    }
  }

  async #inTurn(account: string, begin: () => MaybePromise<HistoryPage>): Promise<HistoryPage> {
    try {
      return await begin();
    } finally {
      this.#turns.give(account);
    }
  }
}

/** The channel, as those see it who read its log. */
export interface ReadChannel {
  readonly name: string;
  readonly rule: ChannelRule;
  readonly epoch: string;
  readonly offset: number;
  readonly position: Position;
  readonly isClosed: boolean;
  /** The log's head was here: this node reads what it lacks. */
  reachHead(head: Position): void;
}

export interface MissedHistoryPorts {
  readonly reads: HistoryReads;
  /** What this node has seen of the log; none where the log is in this process's memory anyway. */
  readonly kept: Kept | undefined;
  readonly recovery: RecoveryLimits;
  readonly pages: PageBudget;
  readonly observer: HubObserver;
  readonly clock: Clock;
}

export class MissedHistory {
  readonly #channel: ReadChannel;
  readonly #ports: MissedHistoryPorts;
  /** Once somebody lacked what this node has not seen. */
  #shared: SharedRead | undefined;

  constructor(channel: ReadChannel, ports: MissedHistoryPorts) {
    this.#channel = channel;
    this.#ports = ports;
  }

  /** What follows the position. The page may tell that this node lags behind the log. */
  page(since: Position, reader: Reader): MaybePromise<HistoryPage> {
    const { kept, observer, clock } = this.#ports;
    const { name, rule, position: head } = this.#channel;
    const { limit, bytesMax } = this.#pageLimits();
    const follow = (page: HistoryPage): HistoryPage => this.#followReader(since, page);
    if (kept === undefined) {
      const page = this.#readLog(since, reader);
      return page instanceof Promise ? page.then(follow) : follow(page);
    }
    const page = kept.of(name)?.page({ since, limit, bytesMax, head, rule, now: clock.now() });
    if (page !== undefined) {
      observer.historyRead('kept');
      return page;
    }
    this.#shared ??= new SharedRead(async (from, by) => this.#readLog(from, by), limit);
    const shared = this.#shared.page(since, reader);
    // Such a position is known to the log alone.
    return since.offset <= head.offset ? shared : shared.then(follow);
  }

  #pageLimits(): { readonly limit: number; readonly bytesMax: number } {
    const { recovery, pages } = this.#ports;
    return { limit: recovery.pageSize, bytesMax: Math.min(recovery.pageBytesMax, pages.pageBytes) };
  }

  #readLog(since: Position, reader: Reader): MaybePromise<HistoryPage> {
    const { reads } = this.#ports;
    const channel = this.#channel;
    const { epoch } = channel;
    const took = (page: HistoryPage): HistoryPage => {
      this.#keep(page);
      // History may know of a new epoch before this node was told; an answer from before the change is ignored.
      if (page.head.epoch !== epoch && channel.epoch === epoch) channel.reachHead(page.head);
      return page;
    };
    const page = reads.read(channel.name, channel.rule, { since, ...this.#pageLimits() }, reader);
    return page instanceof Promise ? page.then(took) : took(page);
  }

  /** A subscriber has seen more than this node has. */
  #followReader(since: Position, page: HistoryPage): HistoryPage {
    const channel = this.#channel;
    const isAhead = page.head.epoch === channel.epoch && since.offset > channel.offset && page.gap === undefined;
    if (isAhead) channel.reachHead(page.head);
    return page;
  }

  #keep({ head, publications, gap }: HistoryPage): void {
    const { kept } = this.#ports;
    const { name, rule, epoch, isClosed } = this.#channel;
    if (kept === undefined || isClosed || head.epoch !== epoch) return;
    for (const publication of publications) kept.add(name, publication, rule.historySize);
    if (gap === 'trimmed') kept.trimmed(name, head.epoch, (publications[0]?.offset ?? head.offset + 1) - 1);
  }
}

/** Reads after the position. */
export type ReadLog = (since: Position, reader: Reader) => Promise<HistoryPage>;

interface Waiting {
  readonly since: Position;
  readonly reader: Reader;
  readonly resolve: (page: HistoryPage) => void;
  readonly reject: (error: unknown) => void;
  /** A read was under way for it, and brought nothing of what it lacks. */
  passedOver: boolean;
}

export class SharedRead {
  readonly #read: ReadLog;
  /** Publications in a page. */
  readonly #pageSize: number;
  /** In the order in which they came. */
  #waiting: Waiting[] = [];
  #running = false;
  #failed = false;

  constructor(read: ReadLog, pageSize: number) {
    this.#read = read;
    this.#pageSize = pageSize;
  }

  /** A page as the log answers it, for this position. */
  page(since: Position, reader: Reader): Promise<HistoryPage> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ since, reader, resolve, reject, passedOver: false });
      if (this.#running) return;
      this.#running = true;
      void this.#run();
    });
  }

  async #run(): Promise<void> {
    // Those that ask in the same step are read for together.
    await Promise.resolve();
    for (let [longest] = this.#waiting; longest !== undefined; [longest] = this.#waiting) {
      const since = longest.passedOver ? longest.since : this.#lowestNear(longest.since);
      const readers = new Set(this.#waiting);
      try {
        const page = await this.#read(since, this.#readerFor(longest));
        this.#failed = false;
        this.#handOut(page, since, readers);
      } catch (error) {
        this.#failed = !this.#failed && readers.size > 1;
        if (this.#failed) continue;
        this.#waiting = this.#waiting.filter((waiting) => !readers.has(waiting));
        for (const { reject } of readers) reject(error);
      }
    }
    this.#running = false;
  }

  /** If one of those that wait asks only once, so does their read. */
  #readerFor({ reader: { account } }: Waiting): Reader {
    return { account, asksOnce: this.#waiting.some(({ reader }) => reader.asksOnce === true) };
  }

  /** So low that a page from there still holds what follows the position. */
  #lowestNear({ epoch, offset }: Position): Position {
    let lowest = offset;
    for (const { since } of this.#waiting) {
      if (since.epoch === epoch && since.offset < lowest && since.offset > offset - this.#pageSize) {
        lowest = since.offset;
      }
    }
    return { epoch, offset: lowest };
  }

  #handOut(page: HistoryPage, from: Position, readers: ReadonlySet<Waiting>): void {
    this.#waiting = this.#waiting.filter((waiting) => {
      const hasWaited = readers.has(waiting);
      const part = partOf(page, from, waiting.since, hasWaited);
      if (part === undefined) {
        waiting.passedOver ||= hasWaited;
        return true;
      }
      waiting.resolve(part);
      return false;
    });
  }
}

/** What the page of a read after `from` says to whoever stands at `since`; undefined if nothing. */
function partOf(page: HistoryPage, from: Position, since: Position, isFresh: boolean): HistoryPage | undefined {
  if (since.epoch !== from.epoch) return undefined;
  const { head, publications, gap } = page;
  // It was read for exactly this position, or the log is another one than all of them stand in.
  if ((isFresh && since.offset === from.offset) || head.epoch !== from.epoch) return page;
  if (since.offset > head.offset) {
    return isFresh ? { head, publications: [], complete: false, gap: 'epoch_changed' } : undefined;
  }
  const first = publications[0]?.offset ?? head.offset + 1;
  if (gap === 'trimmed' && since.offset < first - 1) return page;
  if (since.offset < from.offset) return undefined;
  const rest = publications.slice(since.offset + 1 - first);
  const last = rest.at(-1)?.offset;
  if (last === undefined && since.offset < head.offset) return undefined;
  return { head, publications: rest, complete: (last ?? since.offset) === head.offset };
}
