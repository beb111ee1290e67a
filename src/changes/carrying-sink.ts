// Carries table changes from the outbox to a log that is not in the database. The relay deletes rows once they are
// appended; after a crash or a broken connection in between it brings the same ones again, which are known by their id.

import type { Hub } from '../core/hub.ts';
import { isChannelName, isServerChannel } from '../protocol/channel.ts';
import type { OutboxRow } from '../database/outbox-row.ts';
import type { CarrySink } from './relay-sink.ts';

/** Ids remembered: many times what can be on its way between two deletions. */
const rememberedMax = 20_000;

export class CarryingSink implements CarrySink {
  readonly kind = 'carry';
  readonly #hub: Hub;
  readonly #appended = new Set<number>();

  constructor(hub: Hub) {
    this.#hub = hub;
  }

  async append(rows: readonly OutboxRow[]): Promise<void> {
    for (const { id, channel, data, key } of rows) {
      if (this.#appended.has(id)) continue;
      if (!isChannelName(channel) || isServerChannel(channel)) this.#hub.observer.error('bad_channel');
      else await this.#hub.publish({ channel, data, key: key ?? undefined, source: 'database' });
      this.#remember(id);
    }
    await this.#hub.settled();
  }

  #remember(id: number): void {
    this.#appended.add(id);
    if (this.#appended.size <= rememberedMax) return;
    const oldest = this.#appended.values().next().value;
    if (oldest !== undefined) this.#appended.delete(oldest);
  }
}
