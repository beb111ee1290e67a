// The name of a Redis. It is kept in Redis itself, since one Redis may have many addresses. A Redis that loses its data
// loses the name too, and a node that starts just then gives it another. The database's log is the judge between the two:
// nodes whose name stands there put it back, and the others take what they find.

import type { Cluster, Redis } from 'ioredis';
import { randomId, type Clock } from '../../time/clock.ts';
import type { LayerName } from '../../changes/layer-name.ts';

export class RedisLayerName implements LayerName {
  readonly #client: Redis | Cluster;
  readonly #prefix: string;
  #name: string;

  constructor(client: Redis | Cluster, prefix: string, clock: Clock) {
    this.#client = client;
    this.#prefix = prefix;
    this.#name = randomId(clock, 8);
  }

  get current(): string {
    return `redis ${this.#prefix} ${this.#name}`;
  }

  async confirm(told: string | null | undefined): Promise<string> {
    const key = `${this.#prefix}:layer`;
    await this.#client.set(key, this.#name, 'NX');
    const kept = (await this.#client.get(key)) ?? this.#name;
    if (kept !== this.#name && told === this.current) await this.#client.set(key, this.#name);
    else this.#name = kept;
    return this.current;
  }
}
