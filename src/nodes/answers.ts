// What this node answers when another one asks: from what it holds itself, in parts that a sync layer can carry.

import type { ChannelCount } from '../core/cluster.ts';
import type { Hub } from '../core/hub.ts';
import { reauthorize } from '../core/reauthorization.ts';
import type { MaybePromise } from '../core/maybe-promise.ts';
import { closeCodes } from '../protocol/codes.ts';
import { encodeControl, type Ask } from './control-message.ts';
import { answerMsMax } from './inquiry.ts';

/** Names of 128 characters make a part of about 45 KB. */
const channelsPerPart = 300;
/** A node with more answers with those that have the most subscribers, and says so. */
export const channelsToldMax = 30_000;

export interface AnswerPorts {
  readonly hub: Hub;
  readonly incarnation: string;
  readonly tell: (data: string) => Promise<void>;
}

/** What this node answers for itself to a question about a number; undefined to one that it does not understand. */
export function countHere(
  hub: Hub,
  { about, user, of, channel }: Omit<Ask, 'kind' | 'from' | 'id'>,
): MaybePromise<number> | undefined {
  switch (about) {
    case 'disconnect':
      return user === undefined ? undefined : disconnectHere(hub, user);
    case 'reauthorize':
      return reauthorize(hub, user);
    case 'connections':
      return of === undefined ? undefined : hub.limits.connectionsOf(of);
    case 'subscribers':
      return channel === undefined ? undefined : (hub.channels.get(channel)?.sessions.size ?? 0);
    case 'channels':
      return undefined;
  }
}

function disconnectHere(hub: Hub, user: string): number {
  const theirs = [...hub.sessions.values()].filter(({ identity }) => identity.user === user);
  for (const { outlet } of theirs) outlet.disconnect(closeCodes.policyViolation, 'disconnected');
  return theirs.length;
}

/** Rejects when the asking node cannot be told. */
export async function answer(ask: Ask, { hub, incarnation, tell }: AnswerPorts): Promise<void> {
  const common = { kind: 'answer', to: ask.from, id: ask.id, incarnation } as const;
  if (ask.about !== 'channels') {
    const count = await countHere(hub, ask);
    if (count !== undefined) await tell(encodeControl({ ...common, part: 0, parts: 1, cut: false, count }));
    return;
  }
  const { told, cut } = mostSubscribed(hub.channelCounts());
  const parts = Math.max(1, Math.ceil(told.length / channelsPerPart));
  const until = hub.clock.monotonic() + answerMsMax;
  // Nobody reads an answer that comes later.
  for (let part = 0; part < parts && hub.clock.monotonic() < until; part++) {
    const slice = told.slice(part * channelsPerPart, (part + 1) * channelsPerPart);
    const channels = slice.map(({ channel, subscribers }) => [channel, subscribers] as const);
    await tell(encodeControl({ ...common, part, parts, cut, channels }));
  }
}

function mostSubscribed(counts: ChannelCount[]): { told: readonly ChannelCount[]; cut: boolean } {
  if (counts.length <= channelsToldMax) return { told: counts, cut: false };
  counts.sort((a, b) => b.subscribers - a.subscribers);
  return { told: counts.slice(0, channelsToldMax), cut: true };
}
