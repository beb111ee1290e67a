// Presence on this node: the connections that are members, the lists of the channels in which they are, and the store
// that all nodes share.
//
//   enter   the ledger has the store take the member in, and the roster has heard of it before anyone is answered
//   part    the connection is gone: its user has the time of grace to come back, here or on another node
//   leave   told at once; a user who comes and goes without end is given the time of grace as well
//
// After an interruption (the store was away, or lost its memory):
//
//   1. lists are frozen: listeners are told nothing that may be undone a moment later
//   2. the node gives a sign of life. If the store does not know it, it takes another name, and enters all of its members
//      again; what the store has under the old name is removed as a dead node's
//   3. the other nodes do the same meanwhile, and are given a moment for it
//   4. each list is read. What it has of this node's members and should not have, or lacks, is put right. Listeners are
//      told a fresh list

import { RealtimeError } from '../protocol/realtime-error.ts';
import { presenceFrame, type PresenceList } from '../protocol/frames.ts';
import { presenceLimitDefault } from '../protocol/commands.ts';
import type { MaybePromise } from '../core/maybe-promise.ts';
import type { Fanout } from '../core/outlet.ts';
import type { Entrant, Presence } from '../core/presence.ts';
import type { Clock } from '../time/clock.ts';
import { isDoneWithin } from '../time/within.ts';
import { Announcer, shardsOf } from './announcer.ts';
import { Departures } from './departures.ts';
import { Fidgeting } from './fidgeting.ts';
import { Heartbeat, lifeMs } from './heartbeat.ts';
import { Ledger } from './ledger.ts';
import type { Roster } from './roster.ts';
import { Rosters } from './rosters.ts';
import type { Applied, PresenceStore, Snapshot } from './store.ts';

export interface PresenceOptions {
  readonly store: PresenceStore;
  /** Names this life of this process, as no other: letters and digits. */
  readonly incarnation: string;
  /** For how long a user whose connection is gone may come back without having left. */
  readonly graceMs: number;
  readonly dataBytesMax: number;
  readonly clock: Clock;
  readonly sent: (type: string, channel: string, count: number) => void;
  readonly log: (message: string, error: unknown) => void;
}

/** An answer never takes longer. */
const answerMsMax = 1_000;
/** For other nodes to notice that the store is back, and to enter their members again. */
const settleMs = 2_500;
const closeMsMax = 1_500;

export class NodePresence implements Presence {
  readonly #options: PresenceOptions;
  readonly #ledger: Ledger;
  readonly #rosters: Rosters;
  readonly #departures: Departures;
  readonly #fidgeting: Fidgeting;
  readonly #announcer: Announcer;
  readonly #heartbeat: Heartbeat;
  /** A new one whenever the store forgot this node. */
  #term = 1;
  /** Made once: stores keep it with each member. */
  #node: string;
  #recovering = false;
  #interrupted = false;
  #forgotten = false;
  #closed = false;

  constructor(options: PresenceOptions) {
    this.#options = options;
    this.#node = this.#nameOfTerm();
    const { store, graceMs, clock, sent, log } = options;
    const listeners = (channel: string): number => this.#ledger.count(channel);
    this.#announcer = new Announcer({ listeners, clock, sent, log });
    this.#ledger = new Ledger({
      apply: async (changes) => {
        // In one step with the look: under a name that the store does not know, a member would have nobody to remove it.
        while (!this.#heartbeat.isSure) await this.#heartbeat.give();
        return store.apply(this.#node, changes);
      },
      applyAtOnce: (change) => (this.#heartbeat.isSure ? store.atOnce?.apply(this.#node, change) : undefined),
      clock,
      log,
    });
    this.#departures = new Departures(graceMs, clock, ({ channel, connection, parting }) => {
      if (this.#ledger.isParting(channel, connection, parting)) this.#ledger.leave(channel, connection);
    });
    this.#fidgeting = new Fidgeting(clock);
    this.#rosters = new Rosters({
      store,
      clock,
      log,
      listeners,
      own: (channel, connection) => this.#ledger.own(channel, connection),
      changed: ({ channel }, told) => this.#announcer.changed(channel, told),
      read: (roster, snapshot, isAwaited) => {
        this.#compare(roster.channel, snapshot);
        if (isAwaited) this.#announcer.fresh(roster.channel, roster.list(presenceLimitDefault));
      },
    });
    this.#heartbeat = new Heartbeat({
      store,
      clock,
      log,
      node: () => this.#node,
      forgotten: () => {
        this.#forgotten = true;
        this.#interrupt();
      },
      beat: (isGiven) => {
        this.#rosters.sweep(this.#ledger.needs());
        this.#fidgeting.sweep();
        this.#announcer.sweep();
        // While signs of life cannot be given, that says enough.
        if (isGiven) void this.#rosters.checkSome();
      },
    });
  }

  /** Members of this node. */
  get members(): number {
    return this.#ledger.members;
  }

  /** Throws while lists cannot be compared with the store: what no signal told of stays unnoticed then. */
  requireCompared(): void {
    const { fault } = this.#rosters;
    if (fault !== undefined) throw fault;
  }

  /** Each transport attaches its way to all of its connections, once, before the first connection. */
  attach(fanout: Fanout): void {
    this.#announcer.attach(fanout);
  }

  start(): void {
    this.#options.store.start({
      changed: (channel, epoch, told) => this.#rosters.take(channel, epoch, told),
      interrupted: () => this.#interrupt(),
    });
    this.#heartbeat.start();
  }

  /** The members of this node leave, unless their users have come to another one when the grace is over. Never rejects. */
  async close(): Promise<void> {
    const { store, graceMs, log } = this.#options;
    this.#closed = true;
    this.#departures.close();
    this.#heartbeat.close();
    await isDoneWithin(this.#ledger.settled(), closeMsMax);
    await this.#ledger.close();
    this.#rosters.close();
    try {
      await store.end(this.#node, graceMs);
    } catch (error) {
      // The others find out by themselves.
      log('the end of this node could not be told', error);
    }
    await store.close();
  }

  // The core's port

  enter({ id, identity }: Entrant, channel: string, data: string, membersMax: number): MaybePromise<void> {
    const { dataBytesMax } = this.#options;
    if (!fits(data, dataBytesMax)) {
      throw new RealtimeError('too_large', `The data of a member is larger than ${dataBytesMax} bytes.`);
    }
    const roster = this.#rosters.get(channel);
    const applied = this.#ledger.enter(channel, id, identity.user, data, membersMax);
    return applied instanceof Promise ? this.#onceEntered(roster, applied) : this.#entered(roster, applied);
  }

  async #onceEntered(roster: Roster, applied: Promise<Applied>): Promise<void> {
    await this.#entered(roster, await applied);
  }

  #entered(roster: Roster, { epoch, version, isFull }: Applied): MaybePromise<void> {
    if (isFull) throw new RealtimeError('limit_exceeded', `${roster.channel} has no room for one more member.`);
    const reached = roster.reached(epoch, version);
    // The member is in. Where its own node has not heard of it yet, the list that follows will show it.
    return reached === undefined ? undefined : heardOf(reached);
  }

  hear({ id, outlet }: Entrant, channel: string): void {
    if (!this.#ledger.has(channel, id)) return;
    const [first, other] = shardsOf(id);
    const hears = outlet.hearsPresence(channel, first) || (other !== first && outlet.hearsPresence(channel, other));
    if (!hears) outlet.joinPresence(channel, this.#announcer.shardFor(channel, id));
    const roster = this.#rosters.get(channel);
    roster.expectList();
    if (outlet.takesCommands || !roster.isLive) return;
    outlet.send('presence', presenceFrame(undefined, channel, roster.list(presenceLimitDefault)));
    this.#options.sent('presence', channel, 1);
  }

  has(connection: string, channel: string): boolean {
    return this.#ledger.has(channel, connection);
  }

  leave(entrant: Entrant, channel: string): void {
    const { id, identity, outlet } = entrant;
    if (!this.#ledger.has(channel, id)) return;
    for (const shard of shardsOf(id)) outlet.leavePresence(channel, shard);
    if (this.#fidgeting.isEndless(identity.user ?? id, channel)) this.#part(id, channel);
    else this.#ledger.leave(channel, id);
  }

  part({ id, identity }: Entrant, channel: string): void {
    if (!this.#ledger.has(channel, id)) return;
    // A connection without a user cannot come back.
    if (identity.user === null || this.#options.graceMs === 0) this.#ledger.leave(channel, id);
    else this.#part(id, channel);
  }

  list(channel: string, limit: number): PresenceList | Promise<PresenceList> {
    const roster = this.#rosters.get(channel);
    return roster.isLive ? roster.list(limit) : this.#listOnceLive(channel, limit);
  }

  async #listOnceLive(channel: string, limit: number): Promise<PresenceList> {
    const roster = this.#rosters.get(channel);
    const live = roster.whenLive();
    if (live !== undefined) await isDoneWithin(live, answerMsMax);
    if (!roster.isLive) throw new RealtimeError('unavailable');
    return roster.list(limit);
  }

  #part(connection: string, channel: string): void {
    const parting = this.#ledger.part(channel, connection);
    if (parting !== undefined) this.#departures.add({ channel, connection, parting });
  }

  // After an interruption

  #nameOfTerm(): string {
    return `${this.#options.incarnation}.${this.#term}`;
  }

  #interrupt(): void {
    if (this.#closed) return;
    this.#interrupted = true;
    this.#rosters.suspend();
    if (!this.#recovering) void this.#recover();
  }

  async #recover(): Promise<void> {
    const { clock } = this.#options;
    this.#recovering = true;
    while (this.#interrupted && !this.#closed) {
      this.#interrupted = false;
      try {
        await this.#heartbeat.giveAgain();
      } catch {
        // Away, which the regular signs of life report.
        this.#interrupted = true;
        await clock.sleep(settleMs * (0.1 + clock.random() / 10));
        continue;
      }
      if (this.#forgotten) await this.#enterAgain();
      if (!this.#interrupted && !this.#closed) await this.#rosters.readAll();
    }
    this.#recovering = false;
  }

  async #enterAgain(): Promise<void> {
    const { store, clock, log, graceMs } = this.#options;
    const before = this.#node;
    this.#term++;
    this.#node = this.#nameOfTerm();
    this.#forgotten = false;
    this.#heartbeat.renamed();
    this.#ledger.touchAll();
    await Promise.all([this.#ledger.settled(), clock.sleep(settleMs)]);
    // What is left under the old name went while the store was away.
    store
      .end(before, graceMs)
      .catch((error: unknown) => log('the earlier name of this node could not be ended', error));
  }

  #compare(channel: string, { members }: Snapshot): void {
    if (members.length === 0 && this.#ledger.count(channel) === 0) return;
    const { incarnation, store, log } = this.#options;
    const [own, others] = [new Set<string>(), new Set<string>()];
    for (const { node, connection } of members) {
      if (node.startsWith(`${incarnation}.`)) own.add(connection);
      else others.add(node);
    }
    this.#ledger.compare(channel, own);
    if (others.size === 0) return;
    store.suspect(channel, [...others], lifeMs).catch((error: unknown) => log('nodes could not be looked at', error));
  }
}

async function heardOf(reached: Promise<void>): Promise<void> {
  await isDoneWithin(reached, answerMsMax);
}

/** In UTF-8. A character is at most three bytes of it, so only long texts need to be counted exactly. */
function fits(data: string, bytesMax: number): boolean {
  return data.length * 3 <= bytesMax || new TextEncoder().encode(data).length <= bytesMax;
}
