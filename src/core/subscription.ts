// One connection's subscription to one channel, and what it was asked for with. Only the channel's members (`members.ts`)
// write to it.

import type { GapReason } from '../protocol/codes.ts';
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

/**
 * Where a client stood: a position, or `lost` when it stood in a log that is no more. `epoch` is the channel's present
 * one, which a cursor needs to tell.
 */
export type Resume = (epoch: string) => Position | 'lost' | undefined;

export interface SubscribeRequest {
  readonly channel: string;
  readonly resume?: Resume | undefined;
  /** Enters the channel's presence with this data, JSON text on one line. */
  readonly presence?: string | undefined;
  /** A backend subscribes the connection: neither rules nor the end of a right matter to the subscription. */
  readonly byBackend?: boolean | undefined;
  /** The rows come first; `where there are any`: only of a channel that has such a rule. */
  readonly snapshot?: 'needed' | 'where there are any' | undefined;
}

export function wantsPresence({ presence }: SubscribeRequest): boolean {
  return presence !== undefined;
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

  /**
   * Whether it can begin anew where the client says only now that it stands. Earlier, if it has been sent nothing; or
   * later, as one who comes from a faster node, or names a place that the log never had. `head` is where the channel
   * stands.
   */
  canBeginAt(resume: Position | 'lost' | undefined, head: Position): boolean {
    if (!this.isLive || resume === undefined || resume === 'lost' || resume.epoch !== head.epoch) return false;
    if (resume.offset > head.offset) return true;
    const { epoch, offset } = this.start;
    return epoch === head.epoch && offset === head.offset && resume.offset < offset;
  }

  /** Why it does not bring everything since the position; undefined if it does. `epoch` is the channel's. */
  lacks(resume: Position | 'lost', epoch: string): GapReason | undefined {
    if (resume === 'lost' || resume.epoch !== epoch) return 'epoch_changed';
    return this.start.epoch === epoch && resume.offset < this.start.offset ? 'trimmed' : undefined;
  }

  /** Whether it brings everything since the position, or is about to. */
  covers(resume: Position | 'lost' | undefined, head: Position): boolean {
    if (resume === undefined) return false;
    return this.canBeginAt(resume, head) || this.lacks(resume, head.epoch) === undefined;
  }
}
