// One connection's subscription to one channel.

import type { Position } from '../protocol/position.ts';
import type { Channel } from './channel.ts';
import type { Recovery } from './recovery.ts';

export class Subscription {
  readonly channel: Channel;
  /** Set until the subscriber has caught up. */
  recovery: Recovery | undefined;
  /** Where it began: publications up to here were not sent by it. Two fields, as there are many subscriptions. */
  #startEpoch: string;
  #startOffset: number;

  constructor(channel: Channel, start: Position) {
    this.channel = channel;
    this.#startEpoch = start.epoch;
    this.#startOffset = start.offset;
  }

  get start(): Position {
    return { epoch: this.#startEpoch, offset: this.#startOffset };
  }

  set start({ epoch, offset }: Position) {
    this.#startEpoch = epoch;
    this.#startOffset = offset;
  }
}
