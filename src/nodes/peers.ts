// The other nodes as this one knows them: which are alive, since when, and which were taken for dead. It knows only
// what was received; whether this node receives at all, the caller has to know.

import type { Beat } from './control-message.ts';

export interface Peer {
  readonly node: string;
  readonly incarnation: string;
  readonly since: number;
  readonly term: number;
  readonly connections: number;
  /** Monotonic milliseconds. */
  readonly heardAt: number;
}

/** Dead nodes that are remembered; a beat of one that was forgotten counts as a new node. */
const goneMax = 1_000;

export class Peers {
  readonly #live = new Map<string, Peer>();
  /** Incarnation → the term in which it was taken for dead. */
  readonly #gone = new Map<string, number>();

  /** `gone`: it was taken for dead in this term, and should be sent a doubt. */
  hear({ node, incarnation, since, term, connections }: Beat, now: number): 'new' | 'known' | 'gone' {
    const goneTerm = this.#gone.get(incarnation);
    if (goneTerm !== undefined && term <= goneTerm) return 'gone';
    this.#gone.delete(incarnation);
    const isKnown = this.#live.has(incarnation);
    this.#live.set(incarnation, { node, incarnation, since, term, connections, heardAt: now });
    return isKnown ? 'known' : 'new';
  }

  /** It has left, or is taken for dead. Answers the node, or undefined if it was removed before. */
  remove(incarnation: string): Peer | undefined {
    const peer = this.#live.get(incarnation);
    if (peer === undefined) return undefined;
    this.#live.delete(incarnation);
    this.#gone.set(incarnation, peer.term);
    const oldest = this.#gone.keys().next().value;
    if (this.#gone.size > goneMax && oldest !== undefined) this.#gone.delete(oldest);
    return peer;
  }

  get live(): readonly Peer[] {
    return [...this.#live.values()];
  }

  silentFor(milliseconds: number, now: number): readonly Peer[] {
    return this.live.filter(({ heardAt }) => now - heardAt > milliseconds);
  }

  /** This node did not receive: the silence of the others up to now says nothing. */
  excuse(now: number): void {
    for (const peer of this.#live.values()) this.#live.set(peer.incarnation, { ...peer, heardAt: now });
  }
}
