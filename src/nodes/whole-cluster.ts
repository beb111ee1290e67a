// Questions to all nodes together, including this one.

import type { ChannelCount, Cluster, Gathered, NodeState, UserConnection } from '../core/cluster.ts';
import type { Failures } from '../core/failures.ts';
import { together, type Rates } from '../core/rates.ts';
import { RealtimeError } from '../protocol/realtime-error.ts';
import { doHere, type Self } from './answers.ts';
import type { CountQuestion } from './control-message.ts';
import type { Inquiries } from './inquiry.ts';
import type { Peer } from './peers.ts';

/** Characters of its node's incarnation with which a connection's id begins. */
export const connectionPrefixLength = 4;

type Counts = Gathered<readonly ChannelCount[]>;

export interface WholeClusterPorts {
  readonly self: Self;
  /** This node's name. */
  readonly node: string;
  readonly nodes: () => readonly NodeState[];
  readonly failures: Failures;
  readonly inquiries: Inquiries;
  readonly peers: () => readonly Peer[];
}

export class WholeCluster implements Cluster {
  readonly #ports: WholeClusterPorts;
  #gathering: Promise<Counts> | undefined;
  #next: Promise<Counts> | undefined;

  constructor(ports: WholeClusterPorts) {
    this.#ports = ports;
  }

  nodes(): readonly NodeState[] {
    return this.#ports.nodes();
  }

  async drain(node: string): Promise<boolean> {
    const { self, inquiries, peers } = this.#ports;
    if (node === this.#ports.node) {
      self.drain();
      return true;
    }
    const peer = peers().find((each) => each.node === node);
    if (peer === undefined) return false;
    const silent = await inquiries.askOne(peer, { about: 'drain' }, () => undefined);
    if (silent.length > 0) throw new RealtimeError('unavailable');
    return true;
  }

  channelCounts(): Promise<Counts> {
    if (this.#gathering === undefined) return this.#gather();
    // The answers under way may be older than this call. All calls until then share one more round of questions.
    this.#next ??= this.#gathering.then(() => {
      this.#next = undefined;
      return this.#gather();
    });
    return this.#next;
  }

  async rates(after: number): Promise<Gathered<Rates>> {
    const { self, failures, inquiries, peers } = this.#ports;
    let sum = self.rates(after);
    try {
      const incomplete = await inquiries.ask({ about: 'rates', after }, ({ rates }) => {
        if (rates !== undefined) sum = together(sum, rates);
      });
      return { value: sum, incomplete };
    } catch (error) {
      failures.expected(error);
      return { value: sum, incomplete: peers().map(({ node }) => node) };
    }
  }

  disconnect(user: string): Promise<Gathered<number>> {
    return this.#sum({ about: 'disconnect', user });
  }

  reauthorize(user: string | undefined): Promise<Gathered<number>> {
    return this.#sum(user === undefined ? { about: 'reauthorize' } : { about: 'reauthorize', user });
  }

  connections(of: string): Promise<Gathered<number>> {
    return this.#sum({ about: 'connections', of });
  }

  subscribers(channel: string): Promise<Gathered<number>> {
    return this.#sum({ about: 'subscribers', channel });
  }

  subscribe(user: string, channel: string): Promise<Gathered<number>> {
    return this.#sum({ about: 'subscribe', user, channel });
  }

  unsubscribe(user: string, channel: string): Promise<Gathered<number>> {
    return this.#sum({ about: 'unsubscribe', user, channel });
  }

  async userConnections(user: string): Promise<Gathered<readonly UserConnection[]>> {
    const { self, inquiries, peers } = this.#ports;
    const nodes = new Map(peers().map(({ incarnation, node }) => [incarnation, node]));
    const found = self.users.connections(user);
    const incomplete = await inquiries.ask({ about: 'user', user }, ({ incarnation, connections = [] }) => {
      const node = nodes.get(incarnation) ?? '';
      found.push(...connections.map((each) => ({ ...each, node })));
    });
    return { value: found, incomplete };
  }

  /** A connection's id begins as the incarnation of its node does: one node is asked, seldom two that begin alike. */
  async send(connection: string, channel: string | undefined, frame: string): Promise<boolean> {
    const { self, inquiries, peers } = this.#ports;
    if (self.users.deliver(connection, channel, frame)) return true;
    const prefix = connection.slice(0, connectionPrefixLength);
    const candidates = peers().filter(({ incarnation }) => incarnation.startsWith(prefix));
    const question: CountQuestion = {
      about: 'send',
      connection,
      ...(channel === undefined ? {} : { channel }),
      frame,
    };
    let delivered = 0;
    const silent = await Promise.all(
      candidates.map((peer) => inquiries.askOne(peer, question, ({ count = 0 }) => (delivered += count))),
    );
    if (delivered === 0 && silent.some(({ length }) => length > 0)) throw new RealtimeError('unavailable');
    return delivered > 0;
  }

  /** This node does its part even if the others cannot be reached. */
  async #sum(question: CountQuestion): Promise<Gathered<number>> {
    const { self, inquiries } = this.#ports;
    const own = doHere(self, question);
    let others = 0;
    const asked = inquiries.ask(question, ({ count }) => {
      others += count ?? 0;
    });
    const [here, incomplete] = await Promise.all([own, asked]);
    return { value: (here ?? 0) + others, incomplete };
  }

  #gather(): Promise<Counts> {
    this.#gathering = this.#askAll().finally(() => {
      this.#gathering = undefined;
    });
    return this.#gathering;
  }

  async #askAll(): Promise<Counts> {
    const { self, failures, inquiries, peers } = this.#ports;
    const sums = new Map<string, number>();
    const add = (channel: string, subscribers: number): void => {
      sums.set(channel, (sums.get(channel) ?? 0) + subscribers);
    };
    let incomplete: readonly string[];
    try {
      incomplete = await inquiries.ask({ about: 'channels' }, ({ channels }) => {
        for (const [channel, subscribers] of channels ?? []) add(channel, subscribers);
      });
    } catch (error) {
      // An answer that is marked as incomplete helps an operator more than none.
      failures.expected(error);
      incomplete = peers().map(({ node }) => node);
    }
    for (const { channel, subscribers } of self.hub.channelCounts()) add(channel, subscribers);
    return { value: Array.from(sums, ([channel, subscribers]) => ({ channel, subscribers })), incomplete };
  }
}
