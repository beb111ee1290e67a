// What this node does and answers when another node asks: for itself alone, in parts that a sync layer can carry.

import type { ChannelCount } from '../core/cluster.ts';
import type { Hub } from '../core/hub.ts';
import type { Limits } from '../core/limits.ts';
import type { MaybePromise } from '../core/maybe-promise.ts';
import type { Rates } from '../core/rates.ts';
import type { Sessions } from '../core/sessions.ts';
import type { Users } from '../core/users.ts';
import type { Clock } from '../time/clock.ts';
import { encodeControl, type Answer, type Ask, type ToldConnection } from './control-message.ts';
import { answerMsMax } from './inquiry.ts';

/** Names of 256 characters make a part of about 45 KB. */
const channelsPerPart = 160;
/** A node with more channels answers with those that have the most subscribers, and says so. */
export const channelsAnsweredMax = 30_000;
/** Characters of names in one part, and in all parts, of an answer about a user's connections. */
const namesPerPart = 40_000;
const namesAnsweredMax = 2_000_000;

/** What a node knows of itself. */
export interface Self {
  readonly hub: Hub;
  readonly sessions: Sessions;
  readonly users: Users;
  readonly limits: Limits;
  readonly clock: Clock;
  /** How busy it was after this step. */
  readonly rates: (after: number) => Rates;
  /** Begins a shutdown of this process a moment later, so that the answer can leave. */
  readonly drain: () => void;
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
  { hub, sessions, users, limits, drain }: Self,
  { about, user, of, channel, connection, frame }: Omit<Ask, 'kind' | 'from' | 'id'>,
): MaybePromise<number> | undefined {
  switch (about) {
    case 'disconnect':
      return user === undefined ? undefined : sessions.disconnect(user);
    case 'reauthorize':
      return sessions.reauthorize(user);
    case 'drain':
      drain();
      return 1;
    case 'connections':
      return of === undefined ? undefined : limits.connectionsOf(of);
    case 'subscribers':
      return channel === undefined ? undefined : hub.subscribers(channel);
    case 'subscribe':
      return user === undefined || channel === undefined ? undefined : users.subscribe(user, channel);
    case 'unsubscribe':
      return user === undefined || channel === undefined ? undefined : users.unsubscribe(user, channel);
    case 'send':
      if (connection === undefined || frame === undefined) return undefined;
      return users.deliver(connection, channel, frame) ? 1 : 0;
    case 'channels':
    case 'user':
    case 'rates':
      return undefined;
  }
}

/** Rejects when the answer cannot be sent. */
export async function answer(ask: Ask, { self, incarnation, tell }: AnswerPorts): Promise<void> {
  const { parts, cut } = await partsOf(ask, self);
  const until = self.clock.monotonic() + answerMsMax;
  for (const [part, content] of parts.entries()) {
    // A later answer would not be read.
    if (self.clock.monotonic() >= until) return;
    const { from: to, id } = ask;
    await tell(encodeControl({ kind: 'answer', to, id, incarnation, part, parts: parts.length, cut, ...content }));
  }
}

type Part = Pick<Answer, 'channels' | 'connections' | 'count' | 'rates'>;

/** No part for a question that this node does not understand. */
async function partsOf(ask: Ask, self: Self): Promise<{ parts: readonly Part[]; cut: boolean }> {
  if (ask.about === 'channels') return channelParts(self.hub.channelCounts());
  if (ask.about === 'user') return connectionParts(ask.user === undefined ? [] : self.users.connections(ask.user));
  if (ask.about === 'rates') return { parts: [{ rates: self.rates(ask.after ?? 0) }], cut: false };
  const count = await doHere(self, ask);
  return { parts: count === undefined ? [] : [{ count }], cut: false };
}

function channelParts(counts: ChannelCount[]): { parts: readonly Part[]; cut: boolean } {
  const { answered, cut } = mostSubscribed(counts);
  const parts = Array.from({ length: Math.max(1, Math.ceil(answered.length / channelsPerPart)) }, (_, part) => {
    const slice = answered.slice(part * channelsPerPart, (part + 1) * channelsPerPart);
    return { channels: slice.map(({ channel, subscribers }) => [channel, subscribers] as const) };
  });
  return { parts, cut };
}

function connectionParts(all: readonly ToldConnection[]): { parts: readonly Part[]; cut: boolean } {
  const parts: { connections: ToldConnection[] }[] = [{ connections: [] }];
  let inPart = 0;
  let inAll = 0;
  for (const { connection, transport, since, channels } of all) {
    const names = channels.reduce((sum, name) => sum + name.length, 0);
    if (inAll + names > namesAnsweredMax) return { parts, cut: true };
    if (inPart + names > namesPerPart) {
      parts.push({ connections: [] });
      inPart = 0;
    }
    parts.at(-1)?.connections.push({ connection, transport, since, channels });
    inPart += names + connection.length;
    inAll += names + connection.length;
  }
  return { parts, cut: false };
}

function mostSubscribed(counts: ChannelCount[]): { answered: readonly ChannelCount[]; cut: boolean } {
  if (counts.length <= channelsAnsweredMax) return { answered: counts, cut: false };
  counts.sort((a, b) => b.subscribers - a.subscribers);
  return { answered: counts.slice(0, channelsAnsweredMax), cut: true };
}
