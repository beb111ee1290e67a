// The limits of a node: commands, connections and attempts to connect, each counted over all nodes as far as the sync
// layer reaches. A limit that is off keeps nothing.

import { createHash } from 'node:crypto';
import type { Identity } from '../core/access.ts';
import type { Clock } from '../time/clock.ts';
import type { Caller, LimitKind, Limits, Refusal } from '../core/limits.ts';
import type { MaybePromise } from '../core/maybe-promise.ts';
import { Allowance, type AllowanceOptions, type Exhausted } from './allowance.ts';
import { ConnectionCount, type WholeCount } from './connection-count.ts';

/** 0 sets no limit. */
export interface LimitSettings {
  readonly commandsPerMinute: number;
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
export const burstSeconds = 5;
/** Who is refused so many times its limit within a window does not listen. */
export const abuseFactor = 10;
/** Seconds after which a refused connection may try again: nobody knows when another one ends. */
const connectionRetryAfter = 10;
/** Longer ones are counted by a digest: a key has to fit into an index and a message. */
const keyLengthMax = 200;

export class NodeLimits implements Limits {
  readonly #options: NodeLimitsOptions;
  readonly #userCommands: Allowance | undefined;
  /** A connection is on one node, so nobody else counts its commands. */
  readonly #connectionCommands: Allowance | undefined;
  readonly #connects: Allowance | undefined;
  readonly #authFailures: Allowance | undefined;
  readonly #users: ConnectionCount | undefined;
  readonly #addresses: ConnectionCount | undefined;
  /** By connection, while addresses are limited. */
  readonly #addressOf = new Map<string, string>();

  constructor(options: NodeLimitsOptions) {
    this.#options = options;
    const { commandsPerMinute, connectsPerSecondPerAddress: perSecond, clock } = options;
    const { authFailuresPerMinutePerAddress: failures } = options;
    if (commandsPerMinute > 0) {
      this.#userCommands = this.#allowance('commands', commandsPerMinute, minuteMs);
      const here = { limit: commandsPerMinute, windowMs: minuteMs, fetch: undefined, clock };
      this.#connectionCommands = new Allowance(here);
    }
    if (perSecond > 0) this.#connects = this.#allowance('connects', perSecond * burstSeconds, burstSeconds * 1_000);
    if (failures > 0) this.#authFailures = this.#allowance('authentications', failures, minuteMs);
    this.#users = this.#count('user:', options.connectionsPerUser);
    this.#addresses = this.#count('address:', options.connectionsPerAddress);
  }

  /** All that is kept, counted: nothing of it is left when nobody is there and time has passed. */
  get size(): number {
    const parts = [this.#userCommands, this.#connectionCommands, this.#connects, this.#authFailures, this.#addressOf];
    return [...parts, this.#users, this.#addresses].reduce((sum, part) => sum + (part?.size ?? 0), 0);
  }

  /** Connections that are counted for somebody: once for a user, once for an address. */
  get openConnections(): number {
    return (this.#users?.connections ?? 0) + (this.#addresses?.connections ?? 0) + this.#addressOf.size;
  }

  command({ id, identity }: Caller, count = 1): MaybePromise<Refusal | undefined> {
    const allowance = identity.user === null ? this.#connectionCommands : this.#userCommands;
    if (allowance === undefined) return undefined;
    const spent = allowance.spend(identity.user === null ? id : keyOf(identity.user), count);
    return spent instanceof Promise ? spent.then((known) => this.#commands(known)) : this.#commands(spent);
  }

  arrival(address: string | undefined): MaybePromise<Refusal | undefined> {
    if (this.#connects === undefined || address === undefined) return undefined;
    const spent = this.#connects.spend(address);
    return spent instanceof Promise ? spent.then((known) => refusal('connects', known)) : refusal('connects', spent);
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
    if (user === null) this.#connectionCommands?.forget(id);
    else this.#users?.left(keyOf(user));
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

  /** To be called every second or so: what is over goes. */
  sweep(): void {
    for (const part of [this.#userCommands, this.#connectionCommands, this.#connects, this.#authFailures])
      part?.sweep();
    this.#users?.sweep();
    this.#addresses?.sweep();
  }

  /** To be called every `remindEveryMs`. */
  remind(): void {
    this.#users?.remind();
    this.#addresses?.remind();
  }

  #commands(exhausted: Exhausted | undefined): Refusal | undefined {
    const isAbuse = (exhausted?.refused ?? 0) > abuseFactor * this.#options.commandsPerMinute;
    return refusal('commands', exhausted, isAbuse);
  }

  #allowance(name: LimitKind, limit: number, windowMs: number): Allowance {
    const { sharedBy, clock } = this.#options;
    return new Allowance({ limit, windowMs, fetch: sharedBy(name, limit, windowMs), clock });
  }

  #count(prefix: string, max: number): ConnectionCount | undefined {
    const { whole, clock } = this.#options;
    return max > 0 ? new ConnectionCount({ max, prefix, whole, clock }) : undefined;
  }
}

function refusal(kind: LimitKind, exhausted: Exhausted | undefined, isAbuse = false): Refusal | undefined {
  return exhausted && { kind, code: 'rate_limited', retryAfter: exhausted.retryAfter, isAbuse };
}

function keyOf(user: string): string {
  return user.length <= keyLengthMax ? user : createHash('sha256').update(user).digest('base64url');
}
