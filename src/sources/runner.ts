// Reads one partition for as long as this node holds its lease:
//
//   1. read the mark, and open the reader there
//   2. ask for the next batch, and wait while the node is not to take anything in
//   3. take it: mark, publications and parked messages in one transaction
//   4. commit it to the broker, which may forget it; go on with 2
//
// Whatever fails ends it, and the partition is opened again from the mark, here or on another node. A crash between 3 and
// 4 brings messages again that the reader leaves out, as they lie before the mark.

import type { NamedSource } from '../rules/source-config.ts';
import { planOf } from './plan.ts';
import type { SourceBroker, SourceReader } from './source.ts';
import type { SourceStore } from './store.ts';

export type SourceOutcome = 'published' | 'skipped' | 'parked' | 'repeated';

/** Calls are cheap, and none throws. */
export interface RunnerObserver {
  messages(source: string, outcome: SourceOutcome, count: number): void;
  /** Of each batch, the error of the first one. */
  parked(source: string, count: number, error: string): void;
}

export interface RunnerOptions {
  readonly source: NamedSource;
  readonly partition: string;
  readonly broker: SourceBroker;
  readonly store: SourceStore;
  readonly messageBytesMax: number;
  readonly observer: RunnerObserver;
  /** Resolves when the node may take something in. */
  readonly gate: (signal: AbortSignal) => Promise<void>;
  /** It reads, and has what it needs. */
  readonly reads: () => void;
}

export class Runner {
  readonly #options: RunnerOptions;
  #reader: SourceReader | undefined;
  #lag: number | undefined;
  /** Of the batch that is not taken yet. */
  #waiting = 0;
  #isMeasuring = false;

  constructor(options: RunnerOptions) {
    this.#options = options;
  }

  /** Messages that wait; undefined where that is not known. */
  get lag(): number | undefined {
    return this.#lag === undefined ? undefined : this.#lag + this.#waiting;
  }

  /** Asks for the lag, also while nothing is taken in. A reader that is broken says so where it reads. */
  async measure(): Promise<void> {
    if (this.#isMeasuring) return;
    this.#isMeasuring = true;
    const reader = this.#reader;
    const lag = await reader?.lag().catch(() => undefined);
    if (reader === this.#reader) this.#lag = lag;
    this.#isMeasuring = false;
  }

  /** Ends when the signal is aborted, or when another node has taken messages. Rejects when something failed. */
  async run(signal: AbortSignal): Promise<void> {
    const { source, partition, broker, store } = this.#options;
    let mark = await store.mark(source.name, partition);
    if (signal.aborted) return;
    const reader = await broker.open(partition, mark);
    this.#reader = reader;
    const stop = (): void => void reader.close();
    signal.addEventListener('abort', stop);
    try {
      if (reader.begins !== undefined) {
        const plan = { entries: [], parked: [], published: 0, skipped: 0 };
        const begins = { source: source.name, partition, expected: mark, mark: reader.begins, plan };
        if (!(await store.take(begins))) return;
        mark = reader.begins;
      }
      this.#options.reads();
      while (!signal.aborted) {
        const taken = await this.#takeNext(reader, mark, signal);
        if (taken === undefined) return;
        mark = taken;
      }
    } catch (error) {
      if (!signal.aborted) throw error;
    } finally {
      signal.removeEventListener('abort', stop);
      this.#reader = undefined;
      this.#lag = undefined;
      await reader.close();
    }
  }

  /** Answers the new mark; undefined when it was not this node's to move. */
  async #takeNext(
    reader: SourceReader,
    expected: string | undefined,
    signal: AbortSignal,
  ): Promise<string | undefined> {
    const { source, partition, store, messageBytesMax, observer } = this.#options;
    const { messages, repeated, mark } = await reader.next();
    this.#waiting = messages.length;
    await this.#options.gate(signal);
    if (signal.aborted) return undefined;
    const plan = planOf(source, partition, messages, messageBytesMax);
    if (!(await store.take({ source: source.name, partition, expected, mark, plan }))) return undefined;
    this.#waiting = 0;
    observer.messages(source.name, 'published', plan.published);
    observer.messages(source.name, 'skipped', plan.skipped);
    observer.messages(source.name, 'parked', plan.parked.length);
    observer.messages(source.name, 'repeated', repeated);
    const [first] = plan.parked;
    if (first !== undefined) observer.parked(source.name, plan.parked.length, first.error);
    await reader.commit();
    return mark;
  }
}
