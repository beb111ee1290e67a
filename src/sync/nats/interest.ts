// Whether the servers of a NATS cluster know of a subscription. The server that took it tells the others by itself, a
// moment later: what a node at another server publishes in that moment is dropped there. Ephemeral publications would be
// lost, though the subscriber was told that it hears them; others would be found in the log, but late.
//
//   1. A node asks all nodes, over the same connections between the servers, so behind the news of the subscription.
//   2. Each node answers: the server that it is connected to has passed the question, so it knows.
//   3. Whoever has answered before, or has asked, is waited for, but not for long: it may be gone.
//
// One question serves all subscriptions that were made before it.

import type { Msg, NatsConnection } from '@nats-io/transport-node';
import type { Clock } from '../../time/clock.ts';
import { isDoneWithin, within } from '../../time/within.ts';
import { answerTimeoutMs } from './connection.ts';
import type { NatsNames } from './names.ts';

export interface NatsInterestOptions {
  /** Throws while there is no connection. */
  readonly live: () => NatsConnection;
  readonly names: NatsNames;
  readonly nodeId: string;
  readonly clock: Clock;
}

/** An answer takes about a millisecond. A node that is busy for longer is no peer until it answers: what it sends may be lost. */
const peerTimeoutMs = 1_000;
/** A node that has just come waits for the answers of nodes that it does not know yet. */
const firstWaitMs = 50;

export class NatsInterest {
  readonly #options: NatsInterestOptions;
  readonly #subject: string;
  /** Other nodes that have answered or asked. */
  readonly #peers = new Set<string>();
  #running: Promise<void> | undefined;
  /** For those who came when a question was under way. */
  #next: Promise<void> | undefined;
  #question = 0;
  /** Whose answer to the question is missing. */
  #missing = new Set<string>();
  #answered: (() => void) | undefined;

  constructor(options: NatsInterestOptions) {
    this.#options = options;
    this.#subject = options.names.interest;
  }

  /** Answers other nodes, and learns of them. */
  async start(): Promise<void> {
    const { live, clock } = this.#options;
    const { names, nodeId } = this.#options;
    live().subscribe(names.answers(nodeId), { callback: (error, message) => void (error ?? this.#take(message)) });
    live().subscribe(this.#subject, { callback: (error, message) => void (error ?? this.#answer(message)) });
    await this.known();
    if (this.isOfMany) await clock.sleep(firstWaitMs);
  }

  /** There are other servers. */
  get isOfMany(): boolean {
    return isCluster(this.#options.live());
  }

  /** Resolves when other servers know of the subscriptions that were made before the call. */
  known(): Promise<void> {
    if (this.#running === undefined) return this.#run();
    // A question that failed says nothing of the next one.
    const over = (): Promise<void> => {
      this.#next = undefined;
      return this.#run();
    };
    this.#next ??= this.#running.then(over, over);
    return this.#next;
  }

  /** The others wait for this node no more. Never rejects: who is not told finds out by waiting once. */
  async leave(): Promise<void> {
    try {
      const connection = this.#options.live();
      connection.publish(this.#subject, `- ${this.#options.nodeId}`);
      await isDoneWithin(connection.flush(), peerTimeoutMs);
    } catch {
      // There is no connection.
    }
  }

  #run(): Promise<void> {
    this.#running = this.#ask().finally(() => {
      this.#running = undefined;
    });
    return this.#running;
  }

  async #ask(): Promise<void> {
    const { live, names, nodeId } = this.#options;
    const connection = live();
    if (!isCluster(connection)) {
      // Answered after what was sent before it.
      await within(connection.flush(), answerTimeoutMs, 'the answer of NATS');
      return;
    }
    const all = Promise.withResolvers<void>();
    this.#missing = new Set([...this.#peers, nodeId]);
    this.#answered = all.resolve;
    connection.publish(this.#subject, `+ ${nodeId} ${++this.#question}`, { reply: names.answers(nodeId) });
    if (await isDoneWithin(all.promise, peerTimeoutMs)) return;
    for (const peer of this.#missing) this.#peers.delete(peer);
  }

  #answer(message: Msg): void {
    const [sign, peer = '', question] = message.string().split(' ');
    const { nodeId } = this.#options;
    if (sign === '-') {
      this.#peers.delete(peer);
      return;
    }
    if (peer !== nodeId) this.#peers.add(peer);
    message.respond(`${nodeId} ${question}`);
  }

  #take(answer: Msg): void {
    const [peer = '', question] = answer.string().split(' ');
    if (peer !== this.#options.nodeId) this.#peers.add(peer);
    if (Number(question) !== this.#question) return;
    this.#missing.delete(peer);
    if (this.#missing.size === 0) this.#answered?.();
  }
}

function isCluster({ info }: NatsConnection): boolean {
  return info?.cluster !== undefined;
}
