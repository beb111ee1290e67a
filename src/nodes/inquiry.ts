// Asks all known nodes a question and gathers their answers, which come in parts, until all have answered or the
// deadline has passed. The nodes that have not answered in full by then are named.

import type { Gathered } from '../core/cluster.ts';
import { isDoneWithin } from '../time/within.ts';
import { encodeControl, type Answer, type Question } from './control-message.ts';
import type { Peer } from './peers.ts';

export interface InquiryPorts {
  /** This node's own: answers are sent to it. */
  readonly incarnation: string;
  readonly peers: () => readonly Peer[];
  /** Sends to all nodes. Rejects when it cannot. */
  readonly tell: (data: string) => Promise<void>;
}

export const answerMsMax = 1_000;

interface Open {
  /** Incarnations of the nodes that have not answered in full. */
  readonly awaited: Set<string>;
  readonly cut: Set<string>;
  readonly parts: Map<string, Set<number>>;
  readonly take: (answer: Answer) => void;
  readonly finish: () => void;
}

export class Inquiries {
  readonly #ports: InquiryPorts;
  readonly #open = new Map<number, Open>();
  #count = 0;

  constructor(ports: InquiryPorts) {
    this.#ports = ports;
  }

  /** `take` is called once with each part of each answer. Rejects when the question could not be sent. */
  ask(question: Question, take: (answer: Answer) => void): Promise<Gathered<undefined>['incomplete']> {
    return this.#ask(question, take, this.#ports.peers());
  }

  /** As `ask`, of one node. The others do not read the question. */
  askOne(peer: Peer, question: Question, take: (answer: Answer) => void): Promise<Gathered<undefined>['incomplete']> {
    return this.#ask(question, take, [peer], peer.incarnation);
  }

  async #ask(
    question: Question,
    take: (answer: Answer) => void,
    peers: readonly Peer[],
    only?: string,
  ): Promise<Gathered<undefined>['incomplete']> {
    if (peers.length === 0) return [];
    const id = ++this.#count;
    const { promise: finished, resolve: finish } = Promise.withResolvers<void>();
    const awaited = new Set(peers.map(({ incarnation }) => incarnation));
    const open: Open = { awaited, cut: new Set(), parts: new Map(), take, finish };
    this.#open.set(id, open);
    try {
      const to = only === undefined ? {} : { to: only };
      const ask = { kind: 'ask', ...to, from: this.#ports.incarnation, id, ...question } as const;
      const sent = this.#ports.tell(encodeControl(ask));
      await isDoneWithin(Promise.all([sent, finished]), answerMsMax);
    } finally {
      this.#open.delete(id);
    }
    return peers
      .filter(({ incarnation }) => awaited.has(incarnation) || open.cut.has(incarnation))
      .map(({ node }) => node);
  }

  /** Takes an answer to this node. One that comes too late is ignored. */
  answered(answer: Answer): void {
    const open = this.#open.get(answer.id);
    if (open === undefined) return;
    const { incarnation, part, parts, cut } = answer;
    const had = open.parts.get(incarnation) ?? new Set();
    if (had.has(part)) return;
    open.parts.set(incarnation, had.add(part));
    if (cut) open.cut.add(incarnation);
    open.take(answer);
    if (had.size < parts) return;
    open.awaited.delete(incarnation);
    if (open.awaited.size === 0) open.finish();
  }

  /** Ends all questions: each gets the answers that have come so far. */
  close(): void {
    for (const open of this.#open.values()) open.finish();
  }
}
