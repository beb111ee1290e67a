// The other nodes as this one knows them: who lives, since when, and who was taken for dead. Judges by what was heard
// alone; whether this node can hear at all is for the caller to know.

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

/** What is remembered of the dead; older ones can only be nodes that were silent for long. */
const goneMax = 1_000;

export class Peers {
  readonly #live = new Map<string, Peer>();
  /** Incarnation → the term in which it was taken for dead. */
  readonly #gone = new Map<string, number>();

  /** `gone`: it was taken for dead in this very term, and should hear of it. */
  hear({ node, incarnation, since, term, connections }: Beat, now: number): 'new' | 'known' | 'gone' {
    const goneTerm = this.#gone.get(incarnation);
    if (goneTerm !== undefined && term <= goneTerm) return 'gone';
    this.#gone.delete(incarnation);
    const isKnown = this.#live.has(incarnation);
    this.#live.set(incarnation, { node, incarnation, since, term, connections, heardAt: now });
    return isKnown ? 'known' : 'new';
  }

  /** It has left, or is taken for dead. Answers who it was, the first time. */
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

  /** This node could not hear: their silence so far says nothing. */
  excuse(now: number): void {
    for (const peer of this.#live.values()) this.#live.set(peer.incarnation, { ...peer, heardAt: now });
  }
}
