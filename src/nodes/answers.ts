// What this node does and answers when another node asks: for itself alone, in parts that a sync layer can carry.

import type { ChannelCount } from '../core/cluster.ts';
import type { Hub } from '../core/hub.ts';
import type { Limits } from '../core/limits.ts';
import type { MaybePromise } from '../core/maybe-promise.ts';
import type { Sessions } from '../core/sessions.ts';
import type { Clock } from '../time/clock.ts';
import { encodeControl, type Ask } from './control-message.ts';
import { answerMsMax } from './inquiry.ts';

/** Names of 256 characters make a part of about 45 KB. */
const channelsPerPart = 160;
/** A node with more channels answers with those that have the most subscribers, and says so. */
export const channelsAnsweredMax = 30_000;

/** What a node knows of itself. */
export interface Self {
  readonly hub: Hub;
  readonly sessions: Sessions;
  readonly limits: Limits;
  readonly clock: Clock;
}

export interface AnswerPorts {
  readonly self: Self;
  readonly incarnation: string;
  readonly tell: (data: string) => Promise<void>;
}

/**
 * Does on this node what is asked for, which may end connections or subscriptions. Answers how many it concerned, or
 * undefined for a question that this node does not understand.
 */
export function doHere(
  { hub, sessions, limits }: Self,
  { about, user, of, channel }: Omit<Ask, 'kind' | 'from' | 'id'>,
): MaybePromise<number> | undefined {
  switch (about) {
    case 'disconnect':
      return user === undefined ? undefined : sessions.disconnect(user);
    case 'reauthorize':
      return sessions.reauthorize(user);
    case 'connections':
      return of === undefined ? undefined : limits.connectionsOf(of);
    case 'subscribers':
      return channel === undefined ? undefined : hub.subscribers(channel);
    case 'channels':
      return undefined;
  }
}

/** Rejects when the answer cannot be sent. */
export async function answer(ask: Ask, { self, incarnation, tell }: AnswerPorts): Promise<void> {
  const common = { kind: 'answer', to: ask.from, id: ask.id, incarnation } as const;
  if (ask.about !== 'channels') {
    const count = await doHere(self, ask);
    if (count !== undefined) await tell(encodeControl({ ...common, part: 0, parts: 1, cut: false, count }));
    return;
  }
  const { answered, cut } = mostSubscribed(self.hub.channelCounts());
  const parts = Math.max(1, Math.ceil(answered.length / channelsPerPart));
  const until = self.clock.monotonic() + answerMsMax;
  // A later answer would not be read.
  for (let part = 0; part < parts && self.clock.monotonic() < until; part++) {
    const slice = answered.slice(part * channelsPerPart, (part + 1) * channelsPerPart);
    const channels = slice.map(({ channel, subscribers }) => [channel, subscribers] as const);
    await tell(encodeControl({ ...common, part, parts, cut, channels }));
  }
}

function mostSubscribed(counts: ChannelCount[]): { answered: readonly ChannelCount[]; cut: boolean } {
  if (counts.length <= channelsAnsweredMax) return { answered: counts, cut: false };
  counts.sort((a, b) => b.subscribers - a.subscribers);
  return { answered: counts.slice(0, channelsAnsweredMax), cut: true };
}
