// One connection's subscription to one channel. Only the channel's members (`members.ts`) write to it.

import type { Position } from '../protocol/position.ts';
import type { Paced } from './pace.ts';
import { Recovery } from './recovery.ts';

/** A connection as a channel sees it. */
export interface Subscriber extends Paced {
  /** The connection's id, by which publications name their sender. */
  readonly id: string;
  /** Whom it counts for where turns are taken: its user, or the connection itself. */
  readonly account: string;
}

/** There are many and most are idle, so it has no more fields than it must. */
export class Subscription {
  /** The channel's name. */
  readonly channel: string;
  readonly subscriber: Subscriber;
  /** Where it began: publications up to here were not sent by it. Those that begin together share the object. */
  start: Position;
  /** Its recovery, until the subscriber has caught up; `live` once the transport's fan-out reaches it. */
  phase: 'added' | 'live' | 'suspended' | Recovery = 'added';

  constructor(channel: string, subscriber: Subscriber, start: Position) {
    this.channel = channel;
    this.subscriber = subscriber;
    this.start = start;
  }

  get isLive(): boolean {
    return this.phase === 'live';
  }

  get recovery(): Recovery | undefined {
    return this.phase instanceof Recovery ? this.phase : undefined;
  }
}
