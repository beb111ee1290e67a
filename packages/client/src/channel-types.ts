// What a channel is asked with and what it tells: options, events, and what it needs of its client.

import type { Clock } from './clock.ts';
import type { Connection } from './connection.ts';
import type { Listener } from './emitter.ts';
import type { SobranieError } from './errors.ts';
import type { PositionStorage } from './platform.ts';
import type { Gap, Member, Message, Position, Snapshot, SubscriptionState } from './protocol.ts';
import type { RequestOptions } from './requests.ts';

/** `joining` until the server has answered, also after each loss of the connection; `failed` when it has refused. */
export type ChannelState = 'idle' | 'joining' | 'live' | 'failed';

export interface ChannelEvents<Data> {
  message: Message<Data>;
  gap: Gap;
  /** The subscription is live, again after each reconnect. `recovered` is false if something was missed. */
  subscribed: SubscriptionState;
  /** The server refused the channel or ended the subscription. */
  failed: SobranieError;
  state: ChannelState;
  join: Member;
  leave: Member;
  update: Member;
  snapshot: Snapshot;
}

export interface SubscribeOptions {
  /** Ends the subscription. */
  readonly signal?: AbortSignal | undefined;
  /** Where to begin: what came after this position comes first. Counts for a channel that is not subscribed yet. */
  readonly since?: Position | undefined;
  /** Publications may have been missed: load again what the channel describes. */
  readonly onGap?: Listener<Gap> | undefined;
}

export interface PublishOptions extends RequestOptions {
  /** Makes a repeat harmless; one is made up unless it is given. At most 64 characters. */
  readonly key?: string;
  /** False: not to this connection, though it is subscribed. Over event streams the server cannot keep to it. */
  readonly echo?: boolean;
  /** The connection that alone gets it, unnumbered and not kept. Over event streams it is refused: `bad_request`. */
  readonly to?: string;
}

export interface HistoryOptions extends RequestOptions {
  /** Only what came after it; without, the newest. */
  readonly since?: Position;
  /**
   * Rows that come before the one of this key, the nearest first, as `rows`: older than the kept messages, where a rule
   * of the server says which.
   */
  readonly before?: string | number;
  /** 1 to 1,000; 100 unless given. */
  readonly limit?: number;
}

/** What a channel needs of its client. */
export interface ChannelHost {
  readonly connection: Connection;
  readonly clock: Clock;
  readonly storage: PositionStorage | undefined;
  readonly storageKey: (channel: string) => string;
}
