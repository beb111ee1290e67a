// Tells this node's listeners what changed in a channel: one frame per change, encoded once for all of them.
//
// A write to a socket costs some microseconds, however little is in it. Where there are many listeners, each is written to
// once in a while, with all that came meanwhile. They are dealt into shards, which take turns: all at once would hold up
// the process for as long as all of their writes take, and the last of them would hear that much later. The first few of a
// channel are in one shard: each shard costs a channel memory, and most channels never have more.

import type { Fanout, PresencePush } from '../core/outlet.ts';
import { presenceChangeFrame, presenceFrame, type PresenceList } from '../protocol/frames.ts';
import type { Clock } from '../time/clock.ts';
import type { Told } from './store.ts';

export interface AnnouncerPorts {
  /** Connections of this node that are told. */
  readonly listeners: (channel: string) => number;
  readonly clock: Clock;
  /** `count` connections got a frame of the type. */
  readonly sent: (type: string, channel: string, count: number) => void;
  readonly log: (message: string, error: unknown) => void;
}

/** Where a channel has as many listeners on this node, they are told in turns. */
export const manyListeners = 1_000;
const shards = 4;
/** The shard of the first few. */
const firstShard = 0;
const firstMax = 50;
/** 5,000 listeners are written to every 60 ms each. */
const listenersPerMs = 80;
const roundMsMax = 80;

/** What waits for its turn, by shard. */
type Waiting = (PresencePush[] | undefined)[];

export class Announcer {
  readonly #ports: AnnouncerPorts;
  readonly #fanouts: Fanout[] = [];
  readonly #waiting = new Map<string, Waiting>();
  /** Channels of which some connections hear by other shards than the first. */
  readonly #dealt = new Set<string>();

  constructor(ports: AnnouncerPorts) {
    this.#ports = ports;
  }

  attach(fanout: Fanout): void {
    this.#fanouts.push(fanout);
  }

  changed(channel: string, told: readonly Told[]): void {
    if (this.#ports.listeners(channel) === 0) return;
    const pushes: PresencePush[] = [];
    for (const change of told) pushes.push(new ChangePush(channel, change));
    this.#tell(channel, pushes);
  }

  /** Where a connection goes that begins to hear. */
  shardFor(channel: string, connection: string): number {
    const shard = shardAmong(connection, this.#ports.listeners(channel));
    if (shard !== firstShard) this.#dealt.add(channel);
    return shard;
  }

  /** Forgets how connections were dealt that are gone. */
  sweep(): void {
    for (const channel of this.#dealt) if (this.#ports.listeners(channel) === 0) this.#dealt.delete(channel);
  }

  /** Whoever listens forgets what it knew. */
  fresh(channel: string, list: PresenceList): void {
    if (this.#ports.listeners(channel) === 0) return;
    this.#tell(channel, [{ type: 'presence', frame: presenceFrame(undefined, channel, list) }]);
  }

  #tell(channel: string, pushes: readonly PresencePush[]): void {
    const listeners = this.#ports.listeners(channel);
    const waiting = this.#waiting.get(channel);
    const isMany = listeners >= manyListeners;
    const used = this.#dealt.has(channel) ? shards : 1;
    for (let shard = 0; shard < used; shard++) {
      const line = waiting?.[shard];
      // What waits goes first, also where there are fewer listeners by now.
      if (line !== undefined) line.push(...pushes);
      else if (isMany) this.#wait(channel, shard, listeners, [...pushes]);
      else this.#write(channel, shard, pushes);
    }
  }

  #wait(channel: string, shard: number, listeners: number, pushes: PresencePush[]): void {
    const { clock } = this.#ports;
    let waiting = this.#waiting.get(channel);
    if (waiting === undefined) {
      waiting = [];
      this.#waiting.set(channel, waiting);
    }
    waiting[shard] = pushes;
    const roundMs = Math.min(roundMsMax, listeners / listenersPerMs);
    // Of each round the shards have a moment each.
    const phaseMs = (clock.monotonic() + roundMs - (shard * roundMs) / shards) % roundMs;
    void clock.sleep(roundMs - phaseMs).then(() => this.#turn(channel, shard));
  }

  #turn(channel: string, shard: number): void {
    const waiting = this.#waiting.get(channel);
    const pushes = waiting?.[shard];
    if (waiting === undefined || pushes === undefined) return;
    waiting[shard] = undefined;
    if (waiting.every((line) => line === undefined)) this.#waiting.delete(channel);
    this.#write(channel, shard, pushes);
  }

  #write(channel: string, shard: number, pushes: readonly PresencePush[]): void {
    const { sent, log } = this.#ports;
    // Fewer than there are members: one that enters is not told so itself, and one that parts hears nothing.
    let told = 0;
    for (const fanout of this.#fanouts) {
      try {
        told += fanout.presence(channel, shard, pushes);
      } catch (error) {
        log('a change of presence could not be fanned out', error);
      }
    }
    if (told > 0) for (const { type } of pushes) sent(type, channel, told);
  }
}

/** Encoded once, if anybody hears it. */
class ChangePush implements PresencePush {
  readonly #channel: string;
  readonly #change: Told;
  #frame: string | undefined;

  constructor(channel: string, change: Told) {
    this.#channel = channel;
    this.#change = change;
  }

  get type(): string {
    return this.#change.kind;
  }

  get frame(): string {
    return (this.#frame ??= presenceChangeFrame(this.#change.kind, this.#channel, this.#change));
  }
}

/** Where the connection may be, if it hears. */
export function shardsOf(connection: string): readonly [first: number, other: number] {
  return [firstShard, hashedShard(connection)];
}

function shardAmong(connection: string, listeners: number): number {
  return listeners <= firstMax ? firstShard : hashedShard(connection);
}

/** Ids are random letters and digits. */
function hashedShard(connection: string): number {
  return connection.charCodeAt(connection.length - 1) % shards;
}
