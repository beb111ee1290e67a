// Carries table changes from the outbox to a log that is not in the database. The relay deletes rows once they are
// appended; after a crash or a broken connection in between it brings the same ones again. Each row is therefore
// published under an idempotency key of its own, by which the log knows it.

import type { Hub } from '../core/hub.ts';
import { isChannelName, isServerChannel } from '../protocol/channel.ts';
import type { OutboxRow } from '../database/outbox-row.ts';
import type { CarrySink } from './relay-sink.ts';

export class CarryingSink implements CarrySink {
  readonly kind = 'carry';
  readonly #hub: Hub;
  readonly #readSource: () => Promise<string>;
  #source: Promise<string> | undefined;

  /** `readSource` names the database: a fresh copy counts its rows anew, and they are not the ones from before. */
  constructor(hub: Hub, readSource: () => Promise<string>) {
    this.#hub = hub;
    this.#readSource = readSource;
  }

  /** The connection was lost: behind the same address there may be another database now. */
  forgetSource(): void {
    this.#source = undefined;
  }

  async append(rows: readonly OutboxRow[]): Promise<void> {
    const source = await this.#knowSource();
    // Handed over at once and in order, so that the log takes them in order and in few round trips.
    await Promise.all(rows.map((row) => this.#publish(row, source)));
    await this.#hub.settled();
  }

  async #publish({ id, channel, data, key }: OutboxRow, source: string): Promise<void> {
    if (!isChannelName(channel) || isServerChannel(channel)) {
      this.#hub.observer.error('bad_channel');
      return;
    }
    // NUL keeps these apart from keys that people choose, which hold none.
    await this.#hub.publish({ channel, data, key: key ?? `\u0000${source} ${id}`, source: 'database' });
  }

  async #knowSource(): Promise<string> {
    this.#source ??= this.#readSource();
    try {
      return await this.#source;
    } catch (error) {
      this.#source = undefined;
      throw error;
    }
  }
}
