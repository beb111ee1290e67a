// The one way to the log: how many reads are under way at once on this node, and for each user, so that a user who asks
// for much delays nobody else. A log in this process's memory answers at once, and needs none of it.

import type { ChannelRule } from '../rules/rules.ts';
import { RealtimeError } from '../protocol/realtime-error.ts';
import type { MaybePromise } from './maybe-promise.ts';
import type { HubObserver } from './observer.ts';
import type { HistoryPage, HistoryQuery, SyncAdapter } from './sync-adapter.ts';
import { Turns } from './turns.ts';

/** On whose account this node itself reads, to fill holes. */
export const nodeReader = '\u0000node';
/** On whose account the application's backend reads. */
export const backendReader = '\u0000backend';

/** Each brings a page, so this bounds the memory of what is under way. */
const turnLimits = { total: 32, each: 8 };
const turnMsMax = 3_000;

export interface HistoryReadsPorts {
  readonly adapter: SyncAdapter;
  readonly observer: HubObserver;
}

export class HistoryReads {
  readonly #ports: HistoryReadsPorts;
  readonly #turns = new Turns(turnLimits, turnMsMax);
  /** Reads that wait for their turn: whoever asks for the same meanwhile shares the answer. */
  readonly #waiting = new Map<string, Promise<HistoryPage>>();

  constructor(ports: HistoryReadsPorts) {
    this.#ports = ports;
  }

  /**
   * Reads a stretch of the log on an account, see `turns.ts`. Rejects with `unavailable` when the log
   * cannot be reached, or its turn does not come in time. `internal`: see the adapter.
   */
  read(
    channel: string,
    rule: ChannelRule,
    query: HistoryQuery,
    account: string,
    internal = false,
  ): MaybePromise<HistoryPage> {
    const { adapter, observer } = this.#ports;
    const begin = (): MaybePromise<HistoryPage> => {
      observer.historyRead('log');
      return adapter.history(channel, rule, query, internal);
    };
    if (!adapter.traits.shared) return begin();
    const { since, limit, bytesMax } = query;
    const key = [channel, internal, since?.epoch, since?.offset, limit, bytesMax].join(' ');
    const waiting = this.#waiting.get(key);
    if (waiting !== undefined) return waiting;
    const turn = this.#takeTurn(account);
    if (turn === undefined) return this.#inTurn(account, begin);
    const read = turn.finally(() => this.#waiting.delete(key)).then(() => this.#inTurn(account, begin));
    this.#waiting.set(key, read);
    return read;
  }

  #takeTurn(account: string): Promise<void> | undefined {
    const late = (cause: unknown): never => {
      throw new RealtimeError('unavailable', 'Too much of the history is being read; retry.', { cause });
    };
    try {
      return this.#turns.take(account)?.catch(late);
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
