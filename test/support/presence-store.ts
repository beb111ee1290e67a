// A presence store that a test can take away from its node: for a while, as in an outage, or for ever, as by a kill.

import type {
  Applied,
  Change,
  PresenceAtOnce,
  PresenceEvents,
  PresenceStore,
  Snapshot,
  Told,
} from '../../src/presence/store.ts';
import { RealtimeError } from '../../src/protocol/realtime-error.ts';

export class StagedStore implements PresenceStore {
  readonly positionsMax: number;
  readonly #store: PresenceStore;
  #events: PresenceEvents | undefined;
  /** `away`: nothing is answered or told. `killed`: the node's process is no more. */
  state: 'works' | 'away' | 'killed' = 'works';
  /** What is told is lost, and nobody notices. */
  isDeaf = false;
  /** False for one in this process that is to answer as one elsewhere does. */
  answersAtOnce = true;

  constructor(store: PresenceStore) {
    this.#store = store;
    this.positionsMax = store.positionsMax;
  }

  get atOnce(): PresenceAtOnce | undefined {
    return this.state === 'works' && this.answersAtOnce ? this.#store.atOnce : undefined;
  }

  start(events: PresenceEvents): void {
    this.#events = events;
    this.#store.start({
      changed: (channel, epoch, told) => this.tell(channel, epoch, told),
      interrupted: () => events.interrupted(),
    });
  }

  tell(channel: string, epoch: string, told: readonly Told[]): void {
    if (this.state === 'works' && !this.isDeaf) this.#events?.changed(channel, epoch, told);
  }

  /** The store is back, and says that it was away. */
  resume(): void {
    this.state = 'works';
    this.#events?.interrupted();
  }

  apply(node: string, changes: readonly Change[]): Promise<readonly Applied[]> {
    return this.#ask(() => this.#store.apply(node, changes));
  }

  watch(channel: string): Promise<void> {
    return this.#ask(() => this.#store.watch(channel));
  }

  unwatch(channel: string): void {
    if (this.state === 'works') this.#store.unwatch(channel);
  }

  read(channel: string): Promise<Snapshot> {
    return this.#ask(() => this.#store.read(channel));
  }

  positions(channels: readonly string[]): ReturnType<PresenceStore['positions']> {
    return this.#ask(() => this.#store.positions(channels));
  }

  live(node: string, milliseconds: number): ReturnType<PresenceStore['live']> {
    return this.#ask(() => this.#store.live(node, milliseconds));
  }

  end(node: string, milliseconds: number): Promise<void> {
    return this.#ask(() => this.#store.end(node, milliseconds));
  }

  suspect(channel: string, nodes: readonly string[], milliseconds: number): Promise<void> {
    return this.#ask(() => this.#store.suspect(channel, nodes, milliseconds));
  }

  bury(node: string): ReturnType<PresenceStore['bury']> {
    return this.#ask(() => this.#store.bury(node));
  }

  close(): Promise<void> {
    return this.#store.close();
  }

  #ask<Value>(ask: () => Promise<Value>): Promise<Value> {
    if (this.state === 'killed') return new Promise(() => undefined);
    if (this.state === 'away') return Promise.reject(new RealtimeError('unavailable'));
    return ask();
  }
}
