// One subscription of a request, from the step in which the connection is added to the channel until it is live. The
// order of it all stands in subscribing.ts.

import type { GapReason } from '../protocol/codes.ts';
import type { SubscriptionState } from '../protocol/frames.ts';
import type { Position } from '../protocol/position.ts';
import { RealtimeError } from '../protocol/realtime-error.ts';
import type { Channel } from './channel.ts';
import type { Connection } from './connection.ts';
import type { Recovery } from './recovery.ts';
import type { Subscription } from './subscription.ts';

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
  /** The server does so by itself, and says nothing where the connection may not. */
  readonly isUnasked?: boolean | undefined;
}

export interface Beginning {
  readonly subscription: Subscription;
  readonly channel: Channel;
  readonly resumes: boolean;
  recovery: Recovery | undefined;
  recovered: boolean;
  /** The client's position is void, or older than a subscription that it has already; it is told a gap. */
  lost: GapReason | undefined;
  /** Its rows come first, unless everything since the client's position does. */
  readonly wantsRows: boolean;
  /** The rows were taken, and come first. */
  takesRows: boolean;
  /** The client had a live subscription, which began anew for the rows. */
  readonly renewed: boolean;
  /** Was live before this request, and stays so. */
  again: boolean;
}

/** 2. In the step in which all channels are open and allowed. */
export function begin(connection: Connection, request: SubscribeRequest, channel: Channel | undefined): Beginning {
  if (channel === undefined) throw new Error('a channel that was opened is missing');
  const before = connection.subscription(channel.name);
  const { recoverable } = channel.rule;
  const resume = recoverable ? request.resume?.(channel.epoch) : undefined;
  const resumes = request.resume !== undefined && (resume !== undefined || !recoverable);
  const wantsRows = request.snapshot !== undefined && recoverable;
  const common = { channel, resumes, wantsRows, takesRows: false, recovery: undefined };
  if (before !== undefined && wantsRows && before.phase !== 'suspended' && !covers(before, channel, resume)) {
    // It asks for rows again: it begins anew, after what it has been sent.
    const seen = before.recovery?.position ?? channel.position;
    end(connection, before, channel);
    const subscription = channel.members.add(connection, seen);
    connection.add(subscription);
    return { ...common, subscription, again: false, renewed: true, lost: undefined, recovered: false };
  }
  if (before !== undefined && canGoBack(before, channel, resume)) {
    // The server began it by itself, and the client says only now where it stood.
    end(connection, before, channel);
  } else if (before !== undefined) {
    const lost = resume === undefined ? undefined : uncovered(before, channel.epoch, resume);
    const recovered = recoverable && lost === undefined;
    return { ...common, subscription: before, again: true, renewed: false, lost, recovered };
  }
  const from = resume === undefined || resume === 'lost' || resume.epoch !== channel.epoch ? undefined : resume;
  const subscription = channel.members.add(connection, from ?? channel.position);
  connection.add(subscription);
  const lost = resume !== undefined && from === undefined ? 'epoch_changed' : undefined;
  // Even one that lacks nothing is held for: other channels of the request may take a while to read.
  const recovery = resume === undefined ? undefined : channel.members.holdFor(subscription);
  return { ...common, subscription, again: false, renewed: false, lost, recovered: false, recovery };
}

/** Whether the client has been sent nothing by a live subscription that begins after the position. */
function canGoBack({ start, isLive }: Subscription, channel: Channel, resume: Position | 'lost' | undefined): boolean {
  if (!isLive || resume === undefined || resume === 'lost' || resume.epoch !== channel.epoch) return false;
  return start.epoch === channel.epoch && start.offset === channel.offset && resume.offset < start.offset;
}

/** Rights may have been taken away while history was read. */
export function requireAll(connection: Connection, beginnings: readonly Beginning[]): void {
  for (const { channel, subscription } of beginnings) {
    if (connection.subscription(channel.name) === subscription) continue;
    throw new RealtimeError('forbidden', `No rule allows to subscribe to ${channel.name} any more.`);
  }
}

function end(connection: Connection, subscription: Subscription, channel: Channel): void {
  connection.outlet.leave(channel.name);
  connection.remove(subscription);
  channel.members.remove(subscription);
}

/** Whether the subscription brings everything since the position that the client names, or is about to. */
function covers(before: Subscription, channel: Channel, resume: Position | 'lost' | undefined): boolean {
  if (resume === undefined) return false;
  return canGoBack(before, channel, resume) || uncovered(before, channel.epoch, resume) === undefined;
}

/** Why a subscription that began earlier does not bring everything since the position; undefined if it does. */
function uncovered({ start }: Subscription, epoch: string, resume: Position | 'lost'): GapReason | undefined {
  if (resume === 'lost' || resume.epoch !== epoch) return 'epoch_changed';
  return start.epoch === epoch && resume.offset < start.offset ? 'trimmed' : undefined;
}

export function stateOf({ channel, subscription, resumes, recovered, takesRows }: Beginning): SubscriptionState {
  const { name, rule, epoch } = channel;
  const recovery = resumes ? { recovered } : {};
  if (!rule.recoverable) return { channel: name, recoverable: false, ...recovery };
  // A client may know more than this node, which catches up before the subscription becomes live.
  const { start } = subscription;
  // With rows, everything after them is yet to come.
  if (takesRows) return { channel: name, recoverable: true, ...start, ...recovery };
  const offset = start.epoch === epoch ? Math.max(channel.offset, start.offset) : channel.offset;
  return { channel: name, recoverable: true, epoch, offset, ...recovery };
}
