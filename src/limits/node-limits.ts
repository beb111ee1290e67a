// The limits of a node: commands, connections and attempts to connect, each counted over all nodes as far as the sync
// layer reaches. A limit that is off keeps nothing.

import { createHash } from 'node:crypto';
import type { Identity } from '../core/access.ts';
import type { Clock } from '../time/clock.ts';
import type { CommandKind, Caller, LimitKind, Limits, Refusal, Taken } from '../core/limits.ts';
import { whenKnown, type MaybePromise } from '../core/maybe-promise.ts';
import { Allowance, type AllowanceOptions, type Exhausted } from './allowance.ts';
import { ConnectionCount, type WholeCount } from './connection-count.ts';

/** 0 sets no limit. */
export interface LimitSettings {
  readonly commandsPerMinute: number;
  readonly subscribesPerMinute: number;
  readonly connectionsPerUser: number;
  readonly connectionsPerAddress: number;
  readonly connectsPerSecondPerAddress: number;
  readonly authFailuresPerMinutePerAddress: number;
}

export interface NodeLimitsOptions extends LimitSettings {
  /** How a limit of this name is counted over all nodes; undefined where there is only this one. */
  readonly sharedBy: (name: string, limit: number, windowMs: number) => AllowanceOptions['fetch'];
  readonly whole: WholeCount;
  readonly clock: Clock;
}

const minuteMs = 60_000;
/** Connects of so many seconds may come at once. */
const burstSeconds = 5;
/** Of one connection: pings and the like, which no user has a reason to send so many of. */
const othersPerMinute = 10_000;
/** Of a user's channels, each node lets this share in before it asks: else a crowd would ask once for each user. */
const freeShare = 0.01;
/** A caller that is refused more than this many times its limit within a window is abusive. */
const abuseFactor = 10;
/** Seconds after which a refused connection may try again: nobody knows when another one ends. */
const connectionRetryAfter = 10;
const tooMuchAtOnce: Refusal = { kind: 'commands', code: 'limit_exceeded', retryAfter: undefined, isAbuse: false };
/** Longer ones are counted by a digest: a key has to fit into an index and a message. */
const keyLengthMax = 200;

export class NodeLimits implements Limits {
  readonly #options: NodeLimitsOptions;
  readonly #userCommands: Allowance | undefined;
  /** A connection is on one node, so nobody else counts its commands. */
  readonly #connectionCommands: Allowance | undefined;
  readonly #userSubscribes: Allowance | undefined;
  readonly #connectionSubscribes: Allowance | undefined;
  readonly #others: Allowance | undefined;
  readonly #connects: Allowance | undefined;
  readonly #authFailures: Allowance | undefined;
  readonly #users: ConnectionCount | undefined;
  readonly #addresses: ConnectionCount | undefined;
  /** By connection, while addresses are limited. */
  readonly #addressOf = new Map<string, string>();

  constructor(options: NodeLimitsOptions) {
    this.#options = options;
    const { commandsPerMinute, subscribesPerMinute, connectsPerSecondPerAddress: perSecond, clock } = options;
    const { authFailuresPerMinutePerAddress: failures } = options;
    const here = (limit: number) => new Allowance({ limit, windowMs: minuteMs, fetch: undefined, clock });
    if (commandsPerMinute > 0) {
      this.#userCommands = this.#allowance('commands', commandsPerMinute, minuteMs);
      this.#connectionCommands = here(commandsPerMinute);
      this.#others = here(othersPerMinute);
    }
    if (subscribesPerMinute > 0) {
      const free = Math.floor(subscribesPerMinute * freeShare);
      this.#userSubscribes = this.#allowance('subscribes', subscribesPerMinute, minuteMs, free);
      this.#connectionSubscribes = here(subscribesPerMinute);
    }
    if (perSecond > 0) this.#connects = this.#allowance('connects', perSecond * burstSeconds, burstSeconds * 1_000);
    if (failures > 0) this.#authFailures = this.#allowance('authentications', failures, minuteMs);
    this.#users = this.#count('user:', options.connectionsPerUser);
    this.#addresses = this.#count('address:', options.connectionsPerAddress);
  }

  /** All that is kept, counted: nothing of it is left when nobody is there and time has passed. */
  get size(): number {
    const parts = [...this.#allowances, this.#addressOf, this.#users, this.#addresses];
    return parts.reduce((sum, part) => sum + (part?.size ?? 0), 0);
  }

  /** Connections that are counted for somebody: once for a user, once for an address. */
  get openConnections(): number {
    return (this.#users?.connections ?? 0) + (this.#addresses?.connections ?? 0) + this.#addressOf.size;
  }

  command({ id, identity }: Caller, count = 1, kind: CommandKind = 'commands'): MaybePromise<Refusal | undefined> {
    const { user } = identity;
    const isConnections = kind === 'others' || user === null;
    const allowance = kind === 'others' ? this.#others : isConnections ? this.#connectionCommands : this.#userCommands;
    const limit = kind === 'others' ? othersPerMinute : this.#options.commandsPerMinute;
    // No time would come at which they could be spent.
    if (allowance !== undefined && count > limit) return tooMuchAtOnce;
    const spent = allowance?.spend(isConnections ? id : keyOf(user), count);
    return whenKnown(spent, (exhausted) => refusal('commands', exhausted, isAbuse(exhausted, limit)));
  }

  subscribe({ id, identity: { user } }: Caller, channels: number): MaybePromise<Taken> {
    const allowance = user === null ? this.#connectionSubscribes : this.#userSubscribes;
    if (allowance === undefined) return { count: channels, refusal: undefined };
    const limit = this.#options.subscribesPerMinute;
    return whenKnown(allowance.take(user === null ? id : keyOf(user), channels), ({ count, exhausted }) => ({
      count,
      refusal: refusal('subscribes', exhausted, isAbuse(exhausted, limit)),
    }));
  }

  arrival(address: string | undefined): MaybePromise<Refusal | undefined> {
    if (this.#connects === undefined || address === undefined) return undefined;
    return whenKnown(this.#connects.spend(address), (exhausted) => refusal('connects', exhausted));
  }

  authentication(address: string | undefined): Refusal | undefined {
    return address === undefined ? undefined : refusal('authentications', this.#authFailures?.exhausted(address));
  }

  authenticationFailed(address: string | undefined): void {
    if (address !== undefined) void this.#authFailures?.spend(address);
  }

  refreshing({ id }: Caller): Refusal | undefined {
    return this.authentication(this.#addressOf.get(id));
  }

  refreshFailed({ id }: Caller): void {
    this.authenticationFailed(this.#addressOf.get(id));
  }

  countConnections({ user }: Identity, address: string | undefined): Promise<void> | undefined {
    const ofUser = user === null ? undefined : this.#users?.ask(keyOf(user));
    const ofAddress = address === undefined ? undefined : this.#addresses?.ask(address);
    if (ofUser === undefined || ofAddress === undefined) return ofUser ?? ofAddress;
    return Promise.all([ofUser, ofAddress]).then(() => undefined);
  }

  connection({ user }: Identity, address: string | undefined): Refusal | undefined {
    const fits =
      (user === null || this.#users?.hasRoom(keyOf(user)) !== false) &&
      (address === undefined || this.#addresses?.hasRoom(address) !== false);
    if (fits) return undefined;
    return { kind: 'connections', code: 'limit_exceeded', retryAfter: connectionRetryAfter, isAbuse: false };
  }

  joined({ id, identity: { user } }: Caller, address: string | undefined): void {
    if (user !== null) this.#users?.joined(keyOf(user));
    if (address === undefined || (this.#addresses ?? this.#authFailures) === undefined) return;
    this.#addresses?.joined(address);
    this.#addressOf.set(id, address);
  }

  left({ id, identity: { user } }: Caller): void {
    for (const own of [this.#connectionCommands, this.#connectionSubscribes, this.#others]) own?.forget(id);
    if (user !== null) this.#users?.left(keyOf(user));
    const address = this.#addressOf.get(id);
    if (address === undefined) return;
    this.#addressOf.delete(id);
    this.#addresses?.left(address);
  }

  connectionsOf(key: string): number {
    const colon = key.indexOf(':') + 1;
    const count = key.startsWith('user:') ? this.#users : this.#addresses;
    return count?.answer(key.slice(colon)) ?? 0;
  }

  /** Drops what has ended. Call it every second or so. */
  sweep(): void {
    for (const allowance of this.#allowances) allowance?.sweep();
    this.#users?.sweep();
    this.#addresses?.sweep();
  }

  /** Call it every `remindEveryMs`. */
  remind(): void {
    this.#users?.remind();
    this.#addresses?.remind();
  }

  get #allowances(): readonly (Allowance | undefined)[] {
    const ofConnections = [this.#connectionCommands, this.#connectionSubscribes, this.#others];
    return [this.#userCommands, this.#userSubscribes, ...ofConnections, this.#connects, this.#authFailures];
  }

  #allowance(name: LimitKind, limit: number, windowMs: number, freeShared = 0): Allowance {
    const { sharedBy, clock } = this.#options;
    const fetch = sharedBy(name, limit, windowMs);
    return new Allowance({ limit, windowMs, fetch, free: fetch === undefined ? 0 : freeShared, clock });
  }

  #count(prefix: string, max: number): ConnectionCount | undefined {
    const { whole, clock } = this.#options;
    return max > 0 ? new ConnectionCount({ max, prefix, whole, clock }) : undefined;
  }
}

function isAbuse(exhausted: Exhausted | undefined, limit: number): boolean {
  return (exhausted?.refused ?? 0) > abuseFactor * limit;
}

function refusal(kind: LimitKind, exhausted: Exhausted | undefined, isAbuse = false): Refusal | undefined {
  return exhausted && { kind, code: 'rate_limited', retryAfter: exhausted.retryAfter, isAbuse };
}

function keyOf(user: string): string {
  return user.length <= keyLengthMax ? user : createHash('sha256').update(user).digest('base64url');
}
