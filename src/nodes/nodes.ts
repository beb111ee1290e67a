// This node among the others: it shows that it is alive, knows which others are, and asks all of them questions.
//
//   1. it listens on the control channel and sends a hello; every node answers with a beat
//   2. if its name was chosen by hand, it waits for a beat under that name: a second node of one name is rejected
//   3. it has joined: `up` is published, and it sends a beat every few seconds
//   4. a node that was silent for too long is taken for dead, if this node receives at all: `down` is published
//   5. when it closes it publishes its own `down` and sends a bye
//
// A node may be taken for dead by mistake, since one node can miss what others receive. After its next beat it gets a
// doubt, and comes up again in its next term. Over a sync layer of one process there are no other nodes.

import type { Cluster, NodeState } from '../core/cluster.ts';
import type { Failures } from '../core/failures.ts';
import type { SyncAdapter } from '../core/sync-adapter.ts';
import type { Rules } from '../rules/rules.ts';
import { RealtimeError } from '../protocol/realtime-error.ts';
import { Announcements } from './announcements.ts';
import { answer, type Self } from './answers.ts';
import { decodeControl, encodeControl, isForAnother, type Beat, type Hello } from './control-message.ts';
import { answerMsMax, Inquiries } from './inquiry.ts';
import { Peers, type Peer } from './peers.ts';
import { Silence } from './silence.ts';
import { WholeCluster } from './whole-cluster.ts';

export interface NodesOptions extends Self {
  readonly nodeId: string;
  readonly adapter: SyncAdapter;
  readonly rules: Rules;
  readonly failures: Failures;
  /** Identifies this run of this process, and no other: letters and digits. */
  readonly incarnation: string;
  /** The name was chosen by hand, so another node may have it too; a random one is unique. */
  readonly named: boolean;
  readonly log: (message: string, details: Readonly<Record<string, unknown>>) => void;
}

/** Another running node has this node's name. */
export class NodeIdTaken extends Error {
  constructor(node: string) {
    super(`another node runs as "${node}"`);
    this.name = 'NodeIdTaken';
  }
}

const tickMs = 1_000;
const beatEveryMs = 3_000;

export class Nodes {
  readonly incarnation: string;
  readonly cluster: Cluster;
  readonly #options: NodesOptions;
  readonly #peers = new Peers();
  readonly #inquiries: Inquiries;
  readonly #announcements: Announcements;
  #term = 0;
  #since = 0;
  #state: 'new' | 'joining' | 'refused' | 'joined' | 'closed' = 'new';
  #timer: ReturnType<typeof setInterval> | undefined;
  #refuse: () => void = () => undefined;
  #beatAt = 0;
  #silence: Silence | undefined;
  #ticking = false;
  #isAnnounced = false;

  constructor(options: NodesOptions) {
    this.#options = options;
    const { hub, rules, clock, failures } = options;
    this.incarnation = options.incarnation;
    const tell = (data: string): Promise<void> => hub.tellNodes(data);
    const peers = (): readonly Peer[] => this.#peers.live;
    this.#inquiries = new Inquiries({ incarnation: this.incarnation, peers, tell });
    this.cluster = new WholeCluster({
      self: options,
      node: options.nodeId,
      nodes: () => this.nodes,
      failures,
      inquiries: this.#inquiries,
      peers,
    });
    this.#announcements = new Announcements({
      hub,
      rules,
      clock,
      nodes: () => this.nodes,
      isChosen: () => this.#isChosen(),
      failed: (error) => this.#failed(error),
    });
  }

  get #node(): string {
    return this.#options.nodeId;
  }

  /** All nodes known to be alive; this one is among them from its join until it leaves. */
  get nodes(): readonly NodeState[] {
    const { sessions } = this.#options;
    const own = { node: this.#node, connections: sessions.size, since: this.#since };
    const others = this.#peers.live.map(({ node, connections, since }) => ({ node, connections, since }));
    return (this.#state === 'joined' ? [own, ...others] : others).sort(byNode);
  }

  /** @throws NodeIdTaken when another node has this one's name. The other node is not affected. */
  async start(): Promise<void> {
    const { hub, adapter, clock, named } = this.#options;
    this.#state = 'joining';
    if (adapter.traits.shared) {
      await hub.listenToNodes((data) => this.#heard(data));
      if (named) await this.#askForNamesakes();
      else void this.#tell(this.#hello());
    }
    this.#state = 'joined';
    this.#since = clock.now();
    this.#silence = new Silence(adapter, clock, this.#peers);
    this.#beat();
    // A node that did not wait for a namesake does not know the others yet: it announces itself in a later tick.
    if (named || !adapter.traits.shared) this.#announceSelf();
    this.#timer = setInterval(() => void this.tick(), tickMs);
  }

  /** Leaves in order, so that the others need not wait for its silence. Idempotent; never rejects. */
  async close(): Promise<void> {
    const wasAnnounced = this.#state === 'joined' && this.#isAnnounced;
    this.#state = 'closed';
    clearInterval(this.#timer);
    this.#inquiries.close();
    if (!wasAnnounced) return;
    const key = `down:${this.incarnation}:${this.#term}`;
    this.#announcements.add({ event: 'down', node: this.#node, key, isOwn: true });
    // If that failed, the others will notice the silence and publish it.
    if (!(await this.#announcements.flush())) return;
    await this.#tell(encodeControl({ kind: 'bye', incarnation: this.incarnation }));
  }

  /** Called every second; in tests by hand. */
  async tick(): Promise<void> {
    if (this.#ticking || this.#state !== 'joined') return;
    this.#ticking = true;
    try {
      const { clock } = this.#options;
      if (clock.monotonic() - this.#beatAt >= beatEveryMs) this.#beat();
      if (!this.#isAnnounced) this.#announceSelf();
      void this.#announcements.flush();
      const dead = (await this.#silence?.dead()) ?? [];
      if (this.#isJoined()) for (const peer of dead) this.#bury(peer);
    } finally {
      this.#ticking = false;
    }
  }

  // Messages of other nodes

  #heard(data: string): void {
    if (this.#state === 'closed' || isForAnother(data, this.incarnation)) return;
    const message = decodeControl(data);
    switch (message?.kind) {
      case 'hello':
        this.#heardHello(message);
        return;
      case 'beat':
        this.#heardBeat(message);
        return;
      case 'bye':
        this.#peers.remove(message.incarnation);
        return;
      case 'doubt':
        this.#heardDoubt(message.term);
        return;
      case 'answer':
        this.#inquiries.answered(message);
        return;
      case 'ask':
        // A node that was rejected has no connections, and the others do not wait for its answer.
        if (this.#state === 'joined') this.#answer(message);
        return;
      case undefined:
        return;
    }
  }

  #heardHello({ node, incarnation }: Hello): void {
    if (this.#state === 'joined') this.#beat();
    if (this.#state !== 'joining' || node !== this.#node) return;
    // Both start at once, and one of them goes on. It sends its hello again: the first may have come too early.
    if (incarnation > this.incarnation) void this.#tell(this.#hello());
    else this.#refuse();
  }

  #heardBeat(beat: Beat): void {
    const { node, incarnation, term } = beat;
    const heard = this.#peers.hear(beat, this.#options.clock.monotonic());
    if (heard === 'gone') void this.#tell(encodeControl({ kind: 'doubt', to: incarnation, term }));
    if (node !== this.#node) return;
    if (this.#state === 'joining') this.#refuse();
    // It was silent while this node asked for namesakes. Publications are not affected, but people read the names.
    if (this.#state === 'joined' && heard === 'new') {
      this.#options.log('another node has the same NODE_ID: give each node a name of its own', { node, incarnation });
    }
  }

  #heardDoubt(term: number): void {
    if (this.#state !== 'joined' || term !== this.#term) return;
    this.#term++;
    this.#announceSelf();
    this.#beat();
  }

  #answer(ask: Parameters<typeof answer>[0]): void {
    const { hub } = this.#options;
    answer(ask, { self: this.#options, incarnation: this.incarnation, tell: (data) => hub.tellNodes(data) }).catch(
      (error: unknown) => {
        this.#failed(error);
      },
    );
  }

  // Messages of this node

  #hello(): string {
    return encodeControl({ kind: 'hello', node: this.#node, incarnation: this.incarnation });
  }

  #beat(): void {
    const { adapter, clock, sessions } = this.#options;
    if (!adapter.traits.shared) return;
    this.#beatAt = clock.monotonic();
    void this.#tell(
      encodeControl({
        kind: 'beat',
        node: this.#node,
        incarnation: this.incarnation,
        term: this.#term,
        since: this.#since,
        connections: sessions.size,
      }),
    );
  }

  #announceSelf(): void {
    this.#isAnnounced = true;
    const key = `up:${this.incarnation}:${this.#term}`;
    this.#announcements.add({ event: 'up', node: this.#node, key, isOwn: true });
  }

  /** Never rejects: beats are repeated, and a missing answer is noticed by the node that asked. */
  async #tell(data: string): Promise<void> {
    try {
      await this.#options.hub.tellNodes(data);
    } catch (error) {
      this.#failed(error);
    }
  }

  /** The sync layer reports by itself that it is away. */
  #failed(error: unknown): void {
    if (error instanceof RealtimeError && error.code === 'unavailable') return;
    this.#options.log('nodes: an unexpected failure', { err: error });
  }

  // Nodes that died

  #bury({ node, incarnation, term }: Peer): void {
    this.#peers.remove(incarnation);
    this.#options.log('a node has died: it fell silent without leaving', { node, incarnation });
    this.#announcements.add({ event: 'down', node, key: `down:${incarnation}:${term}`, isOwn: false });
  }

  #isJoined(): boolean {
    return this.#state === 'joined';
  }

  #isChosen(): boolean {
    return this.#peers.live.every(({ incarnation }) => this.incarnation < incarnation);
  }

  async #askForNamesakes(): Promise<void> {
    const { hub, clock } = this.#options;
    const refusal = Promise.withResolvers<'refused'>();
    this.#refuse = () => refusal.resolve('refused');
    await hub.tellNodes(this.#hello());
    if ((await Promise.race([refusal.promise, clock.sleep(answerMsMax)])) !== 'refused') return;
    this.#state = 'refused';
    throw new NodeIdTaken(this.#node);
  }
}

function byNode(a: NodeState, b: NodeState): number {
  return a.node < b.node ? -1 : a.node > b.node ? 1 : a.since - b.since;
}
