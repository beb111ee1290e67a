// Messages between nodes on the control channel, as JSON. Another node may run another version of this program: unknown
// kinds and members are ignored, and every known member is checked before use.

import type { UserConnection } from '../core/cluster.ts';
import { rateNames, type RateName, type Rates } from '../core/rates.ts';

export interface Hello {
  readonly kind: 'hello';
  readonly node: string;
  readonly incarnation: string;
}

/** Sent every few seconds by a node that has joined. */
export interface Beat {
  readonly kind: 'beat';
  readonly node: string;
  /** Identifies one run of one process: a restart under the same name has another. */
  readonly incarnation: string;
  /** Rises when the node was taken for dead by mistake. */
  readonly term: number;
  /** When it joined, in Unix milliseconds. */
  readonly since: number;
  readonly connections: number;
}

/** The node leaves in order, and has published its `down` already. */
export interface Bye {
  readonly kind: 'bye';
  readonly incarnation: string;
}

/** To a node that was taken for dead in this term, and sent a beat afterwards. */
export interface Doubt {
  readonly kind: 'doubt';
  readonly to: string;
  readonly term: number;
}

/** Questions that each node answers with one number, for itself. */
export type CountQuestion =
  /** Close the user's connections: how many there were. */
  | { readonly about: 'disconnect'; readonly user: string }
  /** Check the rights of the user, or of everyone, again: how many subscriptions ended. */
  | { readonly about: 'reauthorize'; readonly user?: string }
  /** Drain, as after a signal: 1. To one node alone. */
  | { readonly about: 'drain' }
  /** How many connections count under a key of the limits, see core/limits.ts. */
  | { readonly about: 'connections'; readonly of: string }
  | { readonly about: 'subscribers'; readonly channel: string }
  /** Subscribe the user's WebSockets: how many are subscribed. */
  | { readonly about: 'subscribe'; readonly user: string; readonly channel: string }
  /** End the user's subscriptions to the channel: how many there were. */
  | { readonly about: 'unsubscribe'; readonly user: string; readonly channel: string }
  /** Give a frame to a connection, which is subscribed to the channel, if one is named: 1, or 0 when it is not there. */
  | { readonly about: 'send'; readonly connection: string; readonly channel?: string; readonly frame: string };

export type Question =
  | { readonly about: 'channels' }
  /** The user's connections. */
  | { readonly about: 'user'; readonly user: string }
  /** How busy the node was after this step. */
  | { readonly about: 'rates'; readonly after: number }
  | CountQuestion;

export interface Ask {
  readonly kind: 'ask';
  /** The only node that is asked; absent for a question to all. */
  readonly to?: string;
  readonly from: string;
  readonly id: number;
  readonly about: Question['about'];
  readonly user?: string;
  readonly of?: string;
  readonly channel?: string;
  readonly connection?: string;
  readonly frame?: string;
  readonly after?: number;
}

/** One part of an answer. */
export interface Answer {
  readonly kind: 'answer';
  readonly to: string;
  readonly id: number;
  readonly incarnation: string;
  readonly part: number;
  readonly parts: number;
  /** The answer was cut: there is more. */
  readonly cut: boolean;
  /** Channels and their subscribers. */
  readonly channels?: readonly (readonly [string, number])[];
  /** A user's connections. */
  readonly connections?: readonly ToldConnection[];
  readonly rates?: Rates;
  /** The answer to a `CountQuestion`. */
  readonly count?: number;
}

/** A connection of the answering node, whose name the asking node knows. */
export type ToldConnection = Omit<UserConnection, 'node'>;

export type ControlMessage = Hello | Beat | Bye | Doubt | Ask | Answer;

type Check = (value: unknown) => boolean;

const text: Check = (value) => typeof value === 'string' && value !== '' && value.length <= 1_024;
const count: Check = (value) => typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
const truth: Check = (value) => typeof value === 'boolean';
const counts: Check = (value) =>
  Array.isArray(value) && value.every((pair) => Array.isArray(pair) && text(pair[0]) && count(pair[1]));
const long: Check = (value) => typeof value === 'string';
const connections: Check = (value) =>
  Array.isArray(value) &&
  value.every(
    (each: Partial<ToldConnection> | null) =>
      text(each?.connection) &&
      text(each?.transport) &&
      count(each?.since) &&
      Array.isArray(each?.channels) &&
      each.channels.every(text),
  );
const rates: Check = (value) => {
  const { from, series } = (value ?? {}) as { from?: unknown; series?: Partial<Record<RateName, unknown>> };
  if (!count(from) || typeof series !== 'object' || series === null) return false;
  const lists = rateNames.map((name) => series[name]);
  const length = Array.isArray(lists[0]) ? lists[0].length : 0;
  return lists.every(
    (list) => Array.isArray(list) && list.length === length && list.every((each) => Number.isFinite(each)),
  );
};
const maybe =
  (check: Check): Check =>
  (value) =>
    value === undefined || check(value);

const shapes: { readonly [Kind in ControlMessage['kind']]: Readonly<Record<string, Check>> } = {
  hello: { node: text, incarnation: text },
  beat: { node: text, incarnation: text, term: count, since: count, connections: count },
  bye: { incarnation: text },
  doubt: { to: text, term: count },
  ask: {
    to: maybe(text),
    from: text,
    id: count,
    about: text,
    user: maybe(text),
    of: maybe(text),
    channel: maybe(text),
    connection: maybe(text),
    frame: maybe(long),
    after: maybe(count),
  },
  answer: {
    to: text,
    id: count,
    incarnation: text,
    part: count,
    parts: count,
    cut: truth,
    channels: maybe(counts),
    connections: maybe(connections),
    rates: maybe(rates),
    count: maybe(count),
  },
};

/** A message for one node begins with its incarnation, so that the others need not parse it: see `isForAnother`. */
export function encodeControl(message: ControlMessage): string {
  if (!('to' in message)) return JSON.stringify(message);
  const { to, ...rest } = message;
  return JSON.stringify({ to, ...rest });
}

const addressed = '{"to":"';

/** Reads only the beginning of the text. Incarnations hold nothing that JSON escapes. */
export function isForAnother(data: string, incarnation: string): boolean {
  return data.startsWith(addressed) && !data.startsWith(`${incarnation}"`, addressed.length);
}

/** Undefined for a message that this version does not understand. */
export function decodeControl(data: string): ControlMessage | undefined {
  let message: unknown;
  try {
    message = JSON.parse(data);
  } catch {
    return undefined;
  }
  if (typeof message !== 'object' || message === null || !('kind' in message)) return undefined;
  const { kind } = message;
  if (typeof kind !== 'string' || !Object.hasOwn(shapes, kind)) return undefined;
  const members = message as Record<string, unknown>;
  const shape = shapes[kind as ControlMessage['kind']];
  for (const [name, check] of Object.entries(shape)) if (!check(members[name])) return undefined;
  return message as ControlMessage;
}
