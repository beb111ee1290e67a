// What a hub is made of: its limits, the ports it is given, and what it is asked to publish.

import type { Position } from '../protocol/position.ts';
import { RealtimeError } from '../protocol/realtime-error.ts';
import type { Access, Authenticate } from './access.ts';
import type { Clock } from '../time/clock.ts';
import type { Cluster } from './cluster.ts';
import type { Limits } from './limits.ts';
import type { HubObserver, PublicationSource } from './observer.ts';
import type { Sender } from './publication.ts';
import type { RecoveryLimits } from './recovery.ts';
import type { ChannelRule, Rules } from '../rules/rules.ts';
import type { MaybePromise } from './maybe-promise.ts';
import type { SyncAdapter } from './sync-adapter.ts';

export interface HubOptions {
  readonly nodeId: string;
  readonly heartbeatSeconds: number;
  readonly channelsPerConnectionMax: number;
  readonly messageBytesMax: number;
  readonly recovery: RecoveryLimits;
  /** Publications held per channel while a hole is filled. */
  readonly holdMax: number;
}

export interface PublishRequest {
  readonly channel: string;
  /** JSON text on one line. */
  readonly data: string;
  readonly source: PublicationSource;
  readonly key?: string | undefined;
  readonly from?: Sender | undefined;
  readonly except?: string | undefined;
}

export interface HubPorts {
  readonly adapter: SyncAdapter;
  readonly rules: Rules;
  readonly access: Access;
  readonly limits: Limits;
  /** Checks the tokens of `refresh` commands. */
  readonly authenticate: Authenticate;
  readonly observer: HubObserver;
  readonly clock: Clock;
  /** All nodes together, this one among them; undefined before it has joined them. */
  readonly cluster: () => Cluster | undefined;
  /** Where failures go that no client is told in detail. */
  readonly log: (message: string, error: unknown) => void;
}

/**
 * What the sender is told. An ephemeral publication that did not reach the other nodes was delivered here, and nobody was
 * promised more: told `unavailable`, its sender would send it to this node's subscribers again.
 */
export function senderAnswer(
  rule: ChannelRule,
  answer: MaybePromise<Position | undefined>,
): MaybePromise<Position | undefined> {
  if (rule.recoverable || !(answer instanceof Promise)) return answer;
  return answer.catch((error: unknown) => {
    if (error instanceof RealtimeError && error.code === 'unavailable') return undefined;
    throw error;
  });
}
