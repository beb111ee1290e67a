// Proof that messages travel. For each listening connection the node publishes to a topic of its own, which must come
// back over it: a connection can be open, answer pings, and be deaf all the same. Each round also reads a log that
// belongs to no channel, the mark. When its epoch changes, the logs of its server were lost or come from another
// history, also those of channels in which nothing happens.

import { RealtimeError } from '../../protocol/realtime-error.ts';
import type { Clock } from '../../time/clock.ts';
import type { RedisCommands, RedisTopology } from './commands.ts';
import { headOf } from './history.ts';
import { within } from '../../time/within.ts';

export interface RedisCanaryOptions {
  readonly prefix: string;
  readonly nodeId: string;
  readonly clock: Clock;
  readonly commands: RedisCommands;
  /** Nothing came over the listening connection to this master for six seconds, although canaries were sent. */
  readonly deaf: (key: string) => void;
  /** Logs were lost, or come from another history. */
  readonly logsChanged: () => void;
  /** After each round. */
  readonly beat: () => void;
}

interface Lane {
  readonly key: string;
  readonly tag: string;
  readonly topic: string;
  heardAt: number;
  epoch: string | undefined;
  /** How often the marks had been learned anew when it was read. */
  marks: number;
}

const everyMs = 2_000;
/** After a round that failed. */
const againAfterMs = 500;
const deafAfterMs = 6_000;
/** After this many rounds without any answer the connection for commands counts as dead. */
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
  /** Counts how often the marks were to be learned anew. */
  #marks = 0;

  constructor(options: RedisCanaryOptions) {
    this.#options = options;
  }

  /** One topic for each listening connection, such that its messages come over that connection. */
  route(topology: RedisTopology): string[] {
    const known = new Map(this.#lanes.map((lane) => [lane.topic, lane]));
    this.#lanes = topology.keys.map((key) => {
      const lane = this.#createLane(key, topology);
      const { epoch, marks } = known.get(lane.topic) ?? lane;
      return { ...lane, epoch, marks };
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

  /** The marks begin other epochs by what this node itself has done: that tells nothing of the server's data. */
  learnAnew(): void {
    this.#marks++;
  }

  /** Something came over every connection lately. */
  get hears(): boolean {
    const { clock } = this.#options;
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
    if (this.#closed || this.#lanes.length === 0) throw new RealtimeError('unavailable');
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
    this.#timer = setTimeout(() => void this.#round(), this.#heardAll ? everyMs : againAfterMs);
  }

  async #round(): Promise<void> {
    const { commands, beat } = this.#options;
    const answered = await Promise.all(this.#lanes.map((lane) => this.#check(lane)));
    this.#heardAll = answered.every((answer) => answer === 'heard');
    // The connections notice a Redis that is away. One that swallows everything shows only here.
    this.#silentRounds = answered.some((answer) => answer !== 'silent') || !commands.ready ? 0 : this.#silentRounds + 1;
    if (this.#silentRounds >= silentRoundsMax) {
      this.#silentRounds = 0;
      commands.rebuild();
    }
    beat();
    this.#schedule();
  }

  async #check(lane: Lane): Promise<'heard' | 'unheard' | 'silent'> {
    const { clock, deaf, logsChanged } = this.#options;
    let reached: 'unheard' | 'silent' = 'silent';
    try {
      const known = lane.marks === this.#marks ? lane.epoch : undefined;
      await this.#readMark(lane);
      reached = 'unheard';
      if (known !== undefined && known !== lane.epoch && lane.marks === this.#marks) logsChanged();
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
    const marks = this.#marks;
    lane.epoch = headOf(await commands.readAsking(mark, `${mark}:s`, '', 0, 0, 0, 0)).epoch;
    lane.marks = marks;
  }

  #createLane(key: string, topology: RedisTopology): Lane {
    const { prefix, nodeId, clock } = this.#options;
    for (let count = 0; ; count++) {
      const tag = count === 0 ? nodeId : `${nodeId}-${count}`;
      const topic = `${prefix}:n:{${tag}}`;
      if (topology.keyOf(topic) === key) {
        return { key, tag, topic, heardAt: clock.monotonic(), epoch: undefined, marks: this.#marks };
      }
      if (count > 100_000) throw new Error('a master of the Redis Cluster serves no slot');
    }
  }
}
