// The sessions of this node: who connects, whose token ends, whose rights are taken back, who is told to leave.

import { closeCodes } from '../protocol/codes.ts';
import { encodeFrame } from '../protocol/frames.ts';
import { randomId, type Clock } from '../time/clock.ts';
import type { Access, Identity } from './access.ts';
import type { Commands } from './commands.ts';
import type { Denials } from './denials.ts';
import type { Failures } from './failures.ts';
import type { Hub } from './hub.ts';
import type { Limits } from './limits.ts';
import type { HubObserver } from './observer.ts';
import type { Occupancy } from './occupancy.ts';
import type { Outlet } from './outlet.ts';
import { Session, type SessionPorts } from './session.ts';
import type { Slices } from './slices.ts';
import type { Subscribing } from './subscribing.ts';

export interface SessionsOptions {
  readonly nodeId: string;
  /** Begins the ids of connections. */
  readonly connectionPrefix: string;
  readonly heartbeatSeconds: number;
  readonly hub: Hub;
  readonly denials: Denials;
  readonly commands: Commands;
  readonly subscribing: Subscribing;
  readonly access: Access;
  readonly limits: Limits;
  readonly observer: HubObserver;
  readonly occupancy: Occupancy;
  readonly failures: Failures;
  /** In which a crowd leaves, with those who come and recover. */
  readonly slices: Slices;
  readonly clock: Clock;
  /** Called once by each session as it ends, before it leaves its channels. */
  readonly ended?: ((session: Session, code: number, reason: string) => void) | undefined;
}

export interface Drain {
  /** Milliseconds over which the connections leave. */
  readonly spreadMs: number;
  /** Unix milliseconds at which the server closes what is left. */
  readonly deadline: number;
  /** Whether `closeDue` closes each connection at its moment, if it has not left. */
  readonly closes: boolean;
}

const idLength = 16;
/** Sessions that are asked about at once, some channels of each: what decides is not to be flooded. */
const askedAtOnce = 16;
/** What it costs to take a connection out of its channels, in publications sent. */
const leavingCost = 10;

export class Sessions {
  readonly #options: SessionsOptions;
  readonly #sessions = new Map<string, Session>();
  readonly #ports: SessionPorts;
  /** Of a drain: when each connection is closed, the next one first. */
  #due: { readonly session: Session; readonly at: number }[] = [];
  #isClosing = false;

  constructor(options: SessionsOptions) {
    this.#options = options;
    const { nodeId, heartbeatSeconds, commands, subscribing, limits, observer, failures } = options;
    this.#ports = {
      nodeId,
      heartbeatSeconds,
      commands,
      subscribing,
      limits,
      observer,
      failures,
      ended: (session, code, reason) => this.#ended(session, code, reason),
    };
  }

  /** Of a crowd that leaves at once, each counts as gone at once, and is taken out of its channels when it is its turn. */
  #ended(session: Session, code: number, reason: string): void {
    const { hub, limits, observer, occupancy, slices, ended } = this.#options;
    this.#sessions.delete(session.id);
    limits.left(session);
    observer.disconnection(session.outlet.transport, code);
    const leave = (): void => {
      ended?.(session, code, reason);
      hub.leave(session);
      if (session.identity.user !== null) occupancy.user(session.identity.user, false);
    };
    const turn = this.#isClosing ? undefined : slices.take(leavingCost);
    if (turn === undefined) leave();
    else void turn.then(leave);
  }

  get size(): number {
    return this.#sessions.size;
  }

  get(connection: string): Session | undefined {
    return this.#sessions.get(connection);
  }

  /** Live: sessions come and go while it is walked. */
  values(): IterableIterator<Session> {
    return this.#sessions.values();
  }

  /** A connection has opened. `address` is what the client is counted by; undefined while addresses are not limited. */
  connect(identity: Identity, outlet: Outlet, address?: string): Session {
    const { clock, limits, observer, occupancy, connectionPrefix } = this.#options;
    const id = connectionPrefix + randomId(clock, idLength - connectionPrefix.length);
    const session = new Session(id, identity, outlet, clock.now(), this.#ports);
    this.#sessions.set(session.id, session);
    observer.connection(outlet.transport, 'accepted');
    limits.joined(session, address);
    if (identity.user !== null) occupancy.user(identity.user, true);
    return session;
  }

  /** The channels to which a connection of this identity is subscribed by itself, if it may. */
  joined(identity: Identity): readonly string[] {
    return this.#options.access.joined(identity);
  }

  /** Closes the connections whose tokens have ended; call it every second or so. */
  expire(): void {
    const nowSeconds = this.#options.clock.now() / 1_000;
    for (const session of [...this.#sessions.values()]) session.expire(nowSeconds);
  }

  /** Closes the user's connections; answers how many there were. */
  disconnect(user: string): number {
    const theirs = this.of(user);
    for (const session of theirs) session.outlet.disconnect(closeCodes.policyViolation, 'disconnected');
    return theirs.length;
  }

  /**
   * Checks again whether the user's connections, or all of them, may stay where they are subscribed. Answers how many
   * subscriptions were ended: one that cannot be checked is suspended. Rejects, with the old rules in force, when the new
   * ones cannot be read.
   */
  async reauthorize(user: string | undefined): Promise<number> {
    const { access, denials } = this.#options;
    await access.renew(user);
    const subscribed = this.of(user).filter(({ subscriptionCount }) => subscriptionCount > 0);
    let left = 0;
    for (let start = 0; start < subscribed.length; start += askedAtOnce) {
      const some = subscribed.slice(start, start + askedAtOnce);
      for (const count of await Promise.all(some.map((session) => denials.leaveDenied(session)))) left += count;
    }
    return left;
  }

  /**
   * Tells each client its own moment to reconnect. The moments are spread evenly, so that other nodes get a steady flow
   * of connections and no bursts.
   */
  drain({ spreadMs, deadline, closes }: Drain): void {
    const { clock } = this.#options;
    const sessions = [...this.#sessions.values()];
    const now = clock.monotonic();
    this.#due = sessions.map((session, index) => {
      const after = Math.floor(((index + clock.random()) / sessions.length) * spreadMs);
      session.outlet.send('drain', encodeFrame({ type: 'drain', after, deadline }));
      return { session, at: now + after };
    });
    if (!closes) this.#due = [];
  }

  /** Closes the connections whose moment to leave has come. To be called often during a drain. */
  closeDue(): void {
    const now = this.#options.clock.monotonic();
    const later = this.#due.findIndex(({ at }) => at > now);
    const due = this.#due.splice(0, later === -1 ? this.#due.length : later);
    for (const { session } of due) session.outlet.disconnect(closeCodes.goingAway, 'shutting_down');
  }

  /** Closes every connection: the server is shutting down. */
  closeAll(): void {
    this.#isClosing = true;
    for (const session of [...this.#sessions.values()]) {
      session.outlet.disconnect(closeCodes.goingAway, 'shutting_down');
    }
  }

  /** Those of the user, or all. */
  of(user: string | undefined): Session[] {
    const all = [...this.#sessions.values()];
    return user === undefined ? all : all.filter(({ identity }) => identity.user === user);
  }
}
