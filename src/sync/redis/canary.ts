// Proof that messages travel: over each listening connection the node publishes to a topic of its own and must hear it.
// A connection can be open, answer pings, and be deaf all the same. Beside it a mark is read that belongs to no channel:
// when its epoch changes, this server's logs were lost or come from another history, also those where nothing happens.

import type { Clock } from '../../time/clock.ts';
import type { RedisCommands, RedisTopology } from './commands.ts';
import { within } from '../../time/within.ts';

export interface RedisCanaryOptions {
  readonly prefix: string;
  readonly nodeId: string;
  readonly clock: Clock;
  readonly commands: RedisCommands;
  /** The listening connection to this master took nothing for `deafAfterMs` although it was sent. */
  readonly deaf: (key: string) => void;
  /** Logs of this server are not what they were. */
  readonly logsChanged: () => void;
  /** After each round. */
  readonly beat: () => void;
  readonly everyMs?: number;
  /** Where something is amiss. */
  readonly againAfterMs?: number;
  readonly deafAfterMs?: number;
}

interface Lane {
  readonly key: string;
  readonly tag: string;
  readonly topic: string;
  heardAt: number;
  epoch: string | undefined;
}

/** After as many unanswered rounds the connection for commands is taken for dead. */
const silentRoundsMax = 2;

export class RedisCanary {
  readonly #options: RedisCanaryOptions;
  readonly #waiting = new Map<string, () => void>();
  #lanes: readonly Lane[] = [];
  #byTopic = new Map<string, Lane>();
  #count = 0;
  #silentRounds = 0;
  #heardAll = true;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #closed = false;

  constructor(options: RedisCanaryOptions) {
    this.#options = options;
  }

  /** Topics that lead over each of the listening connections. */
  route(topology: RedisTopology): string[] {
    const known = new Map(this.#lanes.map((lane) => [lane.topic, lane]));
    this.#lanes = topology.keys.map((key) => {
      const lane = this.#createLane(key, topology);
      return { ...lane, epoch: known.get(lane.topic)?.epoch };
    });
    this.#byTopic = new Map(this.#lanes.map((lane) => [lane.topic, lane]));
    return [...this.#byTopic.keys()];
  }

  /** Resolves when the marks are known. */
  async start(): Promise<void> {
    await Promise.all(this.#lanes.map((lane) => this.#readMark(lane)));
    this.#schedule();
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
  }

  /** Every connection was heard over lately. */
  get hears(): boolean {
    const { clock, deafAfterMs = 6_000 } = this.#options;
    return this.#lanes.every(({ heardAt }) => clock.monotonic() - heardAt < deafAfterMs);
  }

  /** A message that is no channel's. */
  heard(topic: string, message: string): void {
    const lane = this.#byTopic.get(topic);
    if (lane === undefined) return;
    lane.heardAt = this.#options.clock.monotonic();
    this.#waiting.get(message)?.();
  }

  /** Resolves when messages sent now were heard over every connection; rejects after `timeoutMs`. */
  async probe(timeoutMs: number): Promise<void> {
    if (this.#closed || this.#lanes.length === 0) throw new Error('not connected');
    await Promise.all(this.#lanes.map((lane) => this.#travel(lane, timeoutMs)));
  }

  async #travel({ topic }: Lane, timeoutMs: number): Promise<void> {
    const message = String(++this.#count);
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#waiting.set(message, resolve);
    try {
      await within(Promise.all([promise, this.#options.commands.publish(topic, message)]), timeoutMs, 'the message');
    } finally {
      this.#waiting.delete(message);
    }
  }

  #schedule(): void {
    if (this.#closed) return;
    const { everyMs = 2_000, againAfterMs = 500 } = this.#options;
    this.#timer = setTimeout(() => void this.#round(), this.#heardAll ? everyMs : againAfterMs);
  }

  async #round(): Promise<void> {
    const { commands, beat } = this.#options;
    const answered = await Promise.all(this.#lanes.map((lane) => this.#check(lane)));
    this.#heardAll = answered.every((answer) => answer === 'heard');
    // Redis that is away is told by the connections themselves; one that swallows shows by nothing else.
    this.#silentRounds = answered.some((answer) => answer !== 'silent') || !commands.ready ? 0 : this.#silentRounds + 1;
    if (this.#silentRounds >= silentRoundsMax) {
      this.#silentRounds = 0;
      commands.rebuild();
    }
    beat();
    this.#schedule();
  }

  async #check(lane: Lane): Promise<'heard' | 'unheard' | 'silent'> {
    const { clock, deaf, deafAfterMs = 6_000, logsChanged, everyMs = 2_000 } = this.#options;
    let reached: 'unheard' | 'silent' = 'silent';
    try {
      const known = lane.epoch;
      await this.#readMark(lane);
      reached = 'unheard';
      if (known !== undefined && known !== lane.epoch) logsChanged();
      await this.#travel(lane, everyMs);
      return 'heard';
    } catch {
      // The next rounds will tell whether it lasts.
      if (reached === 'unheard' && clock.monotonic() - lane.heardAt >= deafAfterMs) {
        lane.heardAt = clock.monotonic();
        deaf(lane.key);
      }
    }
    return reached;
  }

  async #readMark(lane: Lane): Promise<void> {
    const { prefix, commands } = this.#options;
    const mark = `${prefix}:l:{${lane.tag}}`;
    // Its log is always empty: only the epoch counts.
    const [epoch] = await commands.readAsking(mark, `${mark}:s`, '', 0, 0);
    lane.epoch = epoch;
  }

  #createLane(key: string, topology: RedisTopology): Lane {
    const { prefix, nodeId, clock } = this.#options;
    for (let count = 0; ; count++) {
      const tag = count === 0 ? nodeId : `${nodeId}-${count}`;
      const topic = `${prefix}:n:{${tag}}`;
      if (topology.keyOf(topic) === key) return { key, tag, topic, heardAt: clock.monotonic(), epoch: undefined };
      if (count > 100_000) throw new Error('a master of the Redis Cluster serves no slot');
    }
  }
}
