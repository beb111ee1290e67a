// The name of a NATS. It is kept in the stream of data, since one NATS may have many addresses, and several servers that
// belong together have the same stream. A NATS that loses its streams loses the name too, and a node that starts just then
// gives it another. The database's log is the judge between the two: nodes whose name stands there put it back, and the
// others take what they find.

import { headers } from '@nats-io/transport-node';
import type { LayerName } from '../../changes/layer-name.ts';
import { randomId, type Clock } from '../../time/clock.ts';
import type { NatsClient } from './connection.ts';
import { available, NatsRefusal, type StreamError } from './failure.ts';
import type { NatsNames } from './names.ts';

export interface NatsLayerNameOptions {
  /** Throws while NATS cannot be reached. */
  readonly client: () => NatsClient;
  readonly names: NatsNames;
  readonly clock: Clock;
}

/** Another node was faster. */
const isNotFirst = 10_071;

export class NatsLayerName implements LayerName {
  readonly #options: NatsLayerNameOptions;
  #name: string;

  constructor(options: NatsLayerNameOptions) {
    this.#options = options;
    this.#name = randomId(options.clock, 8);
  }

  get current(): string {
    return `nats ${this.#options.names.prefix} ${this.#name}`;
  }

  confirm(told: string | null | undefined): Promise<string> {
    return available(this.#confirm(told));
  }

  async #confirm(told: string | null | undefined): Promise<string> {
    const kept = (await this.#kept()) ?? (await this.#keepFirst());
    if (kept !== this.#name && told === this.current) await this.#keep();
    else this.#name = kept;
    return this.current;
  }

  async #kept(): Promise<string | undefined> {
    const { client, names } = this.#options;
    const found = await client().readManager.streams.getMessage(names.dataStream, { last_by_subj: names.layer });
    return found?.string();
  }

  /** Answers the name that is kept then: this node's, or that of a node that was faster. */
  async #keepFirst(): Promise<string> {
    await this.#keep('0');
    return (await this.#kept()) ?? this.#name;
  }

  /** `after`: only where the last message of the subject is the one of this number. */
  async #keep(after?: string): Promise<void> {
    const { client, names } = this.#options;
    const fields = headers();
    if (after !== undefined) fields.set('Nats-Expected-Last-Subject-Sequence', after);
    const answer = await client().request(names.layer, new TextEncoder().encode(this.#name), fields);
    const { error } = answer.json<{ error?: StreamError }>();
    if (error !== undefined && error.err_code !== isNotFirst) throw new NatsRefusal(error);
  }
}
