// A hub in this process without network: connections that record what they are told, a fan-out over them, and a clock
// that only tests turn. What stands behind the hub is a real adapter, or one that a test wraps.

import { anonymous, everyoneAnonymous, type Access, type Authenticate, type Identity } from '../../src/core/access.ts';
import type { Clock } from '../../src/time/clock.ts';
import type { Cluster } from '../../src/core/cluster.ts';
import { createCore, type Core, type CoreOptions } from '../../src/core/core.ts';
import type { Limits } from '../../src/core/limits.ts';
import type { HubObserver } from '../../src/core/observer.ts';
import type { Fanout, Gap, Outlet, PresencePush } from '../../src/core/outlet.ts';
import type { Publication } from '../../src/core/publication.ts';
import type { RuleConfig } from '../../src/rules/config.ts';
import { Rules } from '../../src/rules/rules.ts';
import type { Session } from '../../src/core/session.ts';
import { unobserved } from '../../src/core/occupancy.ts';
import { noSnapshots, type Snapshots } from '../../src/core/snapshot.ts';
import type { Sessions } from '../../src/core/sessions.ts';
import type { SyncAdapter } from '../../src/core/sync-adapter.ts';
import type { CommandId, SubscriptionState } from '../../src/protocol/frames.ts';
import { NodePresence } from '../../src/presence/presence.ts';
import { MemoryAdapter } from '../../src/sync/memory/adapter.ts';
import { MemoryMembers, MemoryPresence } from '../../src/sync/memory/presence.ts';
import { openAccess, silentObserver, unlimited } from './doubles.ts';
import { StagedStore } from './presence-store.ts';

interface Sleeper {
  readonly at: number;
  readonly wake: () => void;
}

/** Stands still until it is advanced. Chance comes from a seed, so that a run can be repeated. */
export class HandClock implements Clock {
  #now = 1_700_000_000_000;
  #seed: number;
  #sleepers: Sleeper[] = [];

  constructor(seed = 1) {
    this.#seed = seed;
  }

  now(): number {
    return this.#now;
  }

  monotonic(): number {
    return this.#now;
  }

  sleep(milliseconds: number): Promise<void> {
    return new Promise((wake) => this.#sleepers.push({ at: this.#now + milliseconds, wake }));
  }

  /** Mulberry32. */
  random(): number {
    this.#seed = (this.#seed + 0x6d2b79f5) | 0;
    let mixed = Math.imul(this.#seed ^ (this.#seed >>> 15), 1 | this.#seed);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  }

  get sleeping(): number {
    return this.#sleepers.length;
  }

  /** Wakes whoever has slept long enough. */
  advance(milliseconds: number): void {
    this.#now += milliseconds;
    const due = this.#sleepers.filter(({ at }) => at <= this.#now);
    this.#sleepers = this.#sleepers.filter(({ at }) => at > this.#now);
    for (const { wake } of due) wake();
  }
}

/** Resolves when everything that can happen without time passing has happened. */
export function idle(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/** What a connection was told, in order. */
export type Told =
  | { readonly kind: 'message'; readonly publication: Publication }
  | { readonly kind: 'gap'; readonly gap: Gap }
  | { readonly kind: 'subscribed'; readonly states: readonly SubscriptionState[]; readonly id: CommandId | undefined }
  | { readonly kind: 'frame'; readonly frame: Readonly<Record<string, unknown>> };

/** Records in place of a socket. */
export class RecordingOutlet implements Outlet {
  readonly transport: string;
  readonly takesCommands: boolean;
  readonly told: Told[] = [];
  readonly joined = new Set<string>();
  /** Called with each thing told, and throws if it may not be. */
  onTold: (told: Told) => void = () => undefined;
  /** What `bufferedBytes` answers. */
  buffered = 0;
  paused = false;
  /** How the hub ended it. */
  ended: { readonly code: number; readonly reason: string } | undefined;
  session: Session | undefined;
  readonly #fanout: RecordingFanout;

  constructor(fanout: RecordingFanout) {
    this.transport = fanout.transport;
    this.takesCommands = fanout.transport !== 'sse';
    this.#fanout = fanout;
  }

  tell(told: Told): void {
    if (this.ended !== undefined || this.session?.closed === true) return;
    this.told.push(told);
    this.onTold(told);
  }

  send(_type: string, frame: string): void {
    this.tell({ kind: 'frame', frame: JSON.parse(frame) as Record<string, unknown> });
  }

  subscribed(states: readonly SubscriptionState[], id: CommandId | undefined): void {
    this.tell({ kind: 'subscribed', states, id });
  }

  deliver(publications: readonly Publication[]): void {
    for (const publication of publications) this.tell({ kind: 'message', publication });
  }

  awaitSnapshot(): void {
    // Nothing is kept here.
  }

  snapshot(_channel: string, frame: string): void {
    this.send('snapshot', frame);
  }

  gap(gap: Gap): void {
    this.tell({ kind: 'gap', gap });
  }

  join(channel: string): void {
    this.joined.add(channel);
    this.#fanout.join(channel, this);
  }

  rest(channel: string): void {
    this.leave(channel);
  }

  leave(channel: string): void {
    this.joined.delete(channel);
    this.#fanout.leave(channel, this);
  }

  joinPresence(channel: string, shard: number): void {
    this.#fanout.join(`${channel} ${shard}`, this);
  }

  hearsPresence(channel: string, shard: number): boolean {
    return this.#fanout.has(`${channel} ${shard}`, this);
  }

  leavePresence(channel: string, shard: number): void {
    this.#fanout.leave(`${channel} ${shard}`, this);
  }

  bufferedBytes(): number {
    return this.buffered;
  }

  pause(): void {
    this.paused = true;
  }

  resume(): void {
    this.paused = false;
  }

  disconnect(code: number, reason: string): void {
    if (this.ended !== undefined) return;
    this.ended = { code, reason };
    for (const channel of [...this.joined]) this.leave(channel);
    this.session?.end(code);
  }

  terminate(): void {
    this.disconnect(1006, '');
  }

  /** The peer went away. */
  cut(): void {
    this.disconnect(1006, 'cut');
  }

  /** Offsets of a channel's messages, gaps as `gap:<reason>@<offset>`. */
  story(channel: string): (number | string)[] {
    return this.told.flatMap((told): (number | string)[] => {
      if (told.kind === 'message' && told.publication.channel === channel) return [told.publication.offset];
      if (told.kind !== 'gap' || told.gap.channel !== channel) return [];
      return [`gap:${told.gap.reason}@${told.gap.position.offset}`];
    });
  }

  frames(type: string): Readonly<Record<string, unknown>>[] {
    return this.told.flatMap((told) => (told.kind === 'frame' && told.frame.type === type ? [told.frame] : []));
  }

  /** The states of all `subscribed` replies. */
  states(): SubscriptionState[] {
    return this.told.flatMap((told) => (told.kind === 'subscribed' ? told.states : []));
  }
}

export class RecordingFanout implements Fanout {
  readonly transport: string;
  readonly #joined = new Map<string, Set<RecordingOutlet>>();

  constructor(transport: string) {
    this.transport = transport;
  }

  get channels(): number {
    return this.#joined.size;
  }

  join(channel: string, outlet: RecordingOutlet): void {
    const outlets = this.#joined.get(channel);
    if (outlets === undefined) this.#joined.set(channel, new Set([outlet]));
    else outlets.add(outlet);
  }

  leave(channel: string, outlet: RecordingOutlet): void {
    const outlets = this.#joined.get(channel);
    outlets?.delete(outlet);
    if (outlets?.size === 0) this.#joined.delete(channel);
  }

  has(channel: string, outlet: RecordingOutlet): boolean {
    return this.#joined.get(channel)?.has(outlet) === true;
  }

  publication(publication: Publication): number {
    let excepted = 0;
    for (const outlet of [...(this.#joined.get(publication.channel) ?? [])]) {
      if (outlet.session?.id === publication.except) excepted++;
      else outlet.deliver([publication]);
    }
    return excepted;
  }

  gap(gap: Gap): void {
    for (const outlet of [...(this.#joined.get(gap.channel) ?? [])]) outlet.gap(gap);
  }

  presence(channel: string, shard: number, pushes: readonly PresencePush[]): number {
    const outlets = [...(this.#joined.get(`${channel} ${shard}`) ?? [])];
    for (const outlet of outlets) {
      for (const { type, frame } of pushes) outlet.send(type, frame);
    }
    return outlets.length;
  }
}

export interface HubHarnessOptions {
  readonly rules?: readonly RuleConfig[];
  readonly clock?: HandClock;
  /** Without it, a memory adapter. */
  readonly adapter?: SyncAdapter;
  readonly access?: Partial<Access>;
  /** In place of `access`, as it is. */
  readonly wholeAccess?: Access;
  readonly cluster?: () => Cluster | undefined;
  readonly commandLimits?: Limits;
  readonly authenticate?: Authenticate;
  readonly observer?: HubObserver;
  readonly limits?: Partial<CoreOptions>;
  readonly snapshots?: Snapshots;
  /** What several nodes share; without it, there is no presence. */
  readonly members?: MemoryMembers;
  /** Letters and digits, of its own where nodes share members. */
  readonly incarnation?: string;
}

export interface HubHarness extends Core {
  readonly rules: Rules;
  readonly clock: HandClock;
  readonly adapter: SyncAdapter;
  readonly fanouts: readonly RecordingFanout[];
  readonly presence: NodePresence;
  /** Of its presence. */
  readonly store: StagedStore;
  /** Messages of what the hub logged. */
  readonly logged: string[];
  connect(transport?: string, identity?: Identity): Connected;
}

export interface Connected {
  readonly session: Session;
  readonly outlet: RecordingOutlet;
  /** Sends a command and resolves when the node has come to rest. */
  send(command: Readonly<Record<string, unknown>>): Promise<void>;
}

export const defaultRules: readonly RuleConfig[] = [
  { channels: 'ephemeral:*', recoverable: false },
  { channels: 'small:*', history: { size: 3 } },
];

export function memoryAdapter(clock: Clock, historyBytesMax = 64 << 20): MemoryAdapter {
  return new MemoryAdapter({ clock, observer: silentObserver, historyBytesMax });
}

export function createHub(options: HubHarnessOptions = {}): HubHarness {
  const clock = options.clock ?? new HandClock();
  const adapter = options.adapter ?? memoryAdapter(clock);
  const logged: string[] = [];
  const rules = new Rules({ rules: options.rules ?? defaultRules });
  const store = new StagedStore(new MemoryPresence(options.members ?? new MemoryMembers(clock)));
  const presence = new NodePresence({
    store,
    incarnation: options.incarnation ?? 'n1',
    graceMs: 5_000,
    dataBytesMax: 4_096,
    clock,
    sent: () => undefined,
    log: (message) => logged.push(message),
  });
  const core = createCore(
    {
      nodeId: 'n1',
      connectionPrefix: (options.incarnation ?? '').slice(0, 4),
      heartbeatSeconds: 25,
      channelsPerConnectionMax: 100,
      messageBytesMax: 65_536,
      bufferedBytesMax: 4 << 20,
      holdMax: 1_000,
      keptBytesMax: 64 << 20,
      recovery: { holdMax: 1_000, holdBytesMax: 1 << 20, pageSize: 200, pageBytesMax: 512 << 10, timeoutMs: 300_000 },
      ...options.limits,
    },
    {
      adapter,
      rules,
      snapshots: options.snapshots ?? noSnapshots,
      occupancy: unobserved,
      access: options.wholeAccess ?? { ...openAccess, ...options.access },
      presence,
      limits: options.commandLimits ?? unlimited,
      authenticate: options.authenticate ?? everyoneAnonymous,
      observer: options.observer ?? silentObserver,
      clock,
      cluster: options.cluster ?? (() => undefined),
      log: (message) => logged.push(message),
    },
  );
  const fanouts = [new RecordingFanout('websocket'), new RecordingFanout('sse')];
  for (const fanout of fanouts) {
    core.hub.attach(fanout);
    presence.attach(fanout);
  }
  void adapter.start(core.hub);
  // Its signs of life never end, and some tests wait until nothing waits for the clock any more.
  if (options.members !== undefined) presence.start();
  return {
    ...core,
    rules,
    clock,
    adapter,
    fanouts,
    presence,
    store,
    logged,
    connect: (transport, identity) => connect(core.sessions, fanouts, transport, identity),
  };
}

function connect(
  sessions: Sessions,
  fanouts: readonly RecordingFanout[],
  transport: string = 'websocket',
  identity: Identity = anonymous,
): Connected {
  const fanout = fanouts.find((candidate) => candidate.transport === transport);
  if (fanout === undefined) throw new Error(`no fan-out for ${transport}`);
  const outlet = new RecordingOutlet(fanout);
  const session = sessions.connect(identity, outlet);
  outlet.session = session;
  const send = async (command: Readonly<Record<string, unknown>>) => {
    session.receive(JSON.stringify(command));
    await idle();
  };
  return { session, outlet, send };
}
