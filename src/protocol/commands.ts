// Frames from a client to the server: the union of commands and the decoder that lets only well-formed ones through.

import { isChannelName, type ChannelName } from './channel.ts';
import { hasAtMost } from './characters.ts';
import type { CommandId } from './frames.ts';
import { isNestedTooDeeply, memberText, nestingMax, singleLine } from './json-text.ts';
import { isPosition, type Position } from './position.ts';
import { RealtimeError } from './realtime-error.ts';

interface Identified {
  readonly id?: CommandId | undefined;
}

/** What a client wants of one channel that it subscribes to. */
export interface ChannelRequest {
  readonly channel: ChannelName;
  readonly since?: Position | undefined;
  /** The data to enter the channel's presence with, as JSON text on one line; absent without presence. */
  readonly presence?: string | undefined;
  /** The rows come first, unless everything since the position does. */
  readonly snapshot?: boolean | undefined;
}

export interface SubscribeCommand extends Identified {
  readonly type: 'subscribe';
  /** Each is answered by itself, also one that is malformed. */
  readonly channels: readonly (ChannelRequest | RefusedCommand)[];
  /** The server subscribes the connection by itself: a channel that it may not have is left out in silence. */
  readonly isUnasked?: true;
}

export interface UnsubscribeCommand extends Identified {
  readonly type: 'unsubscribe';
  readonly channel: ChannelName;
}

export interface PublishCommand extends Identified {
  readonly type: 'publish';
  readonly channel: ChannelName;
  /** JSON text on one line. */
  readonly data: string;
  readonly echo: boolean;
  readonly key?: string | undefined;
  /** The one connection that gets it. */
  readonly to?: string | undefined;
}

export interface HistoryCommand extends Identified {
  readonly type: 'history';
  readonly channel: ChannelName;
  readonly since?: Position | undefined;
  /** Rows that come before this one are wanted, not publications. */
  readonly before?: string | number | undefined;
  readonly limit: number;
}

export interface PresenceCommand extends Identified {
  readonly type: 'presence';
  readonly channel: ChannelName;
  /** Replaces the connection's own data: JSON text on one line. */
  readonly data?: string | undefined;
  readonly limit: number;
}

export interface RefreshCommand extends Identified {
  readonly type: 'refresh';
  readonly token: string;
}

export interface PingCommand extends Identified {
  readonly type: 'ping';
}

export type Command =
  | SubscribeCommand
  | UnsubscribeCommand
  | PublishCommand
  | HistoryCommand
  | PresenceCommand
  | RefreshCommand
  | PingCommand;

export const commandTypes: readonly Command['type'][] = [
  'subscribe',
  'unsubscribe',
  'publish',
  'history',
  'presence',
  'refresh',
  'ping',
];

export const commandIdLengthMax = 64;
export const keyLengthMax = 64;
export const historyLimitDefault = 100;
export const historyLimitMax = 1_000;
export const beforeLengthMax = 256;
/** Of one `subscribe` command. */
export const subscribeChannelsMax = 1_000;
export const presenceLimitDefault = 1_000;
export const presenceLimitMax = 10_000;
/** Longer than the ids of connections. */
const connectionLengthMax = 64;

/** A frame that was refused, with what is known of it for the error reply. */
export interface RefusedCommand {
  readonly error: RealtimeError;
  readonly id: CommandId | undefined;
  readonly channel: string | undefined;
  /** Of one that is well-formed and was refused by a limit. */
  readonly type?: Command['type'];
}

/**
 * Reads one text frame. Unknown members are ignored; `__proto__` and its like are members as any other, since nothing
 * is ever looked up by them. Never throws: what is wrong with the frame comes back as the error to reply.
 */
export function decodeCommand(text: string): Command | RefusedCommand {
  let frame: unknown;
  try {
    frame = JSON.parse(text);
  } catch {
    return refused(undefined, undefined, 'bad_frame', 'The frame is not valid JSON.');
  }
  if (typeof frame !== 'object' || frame === null || Array.isArray(frame)) {
    return refused(undefined, undefined, 'bad_frame', 'The frame is not a JSON object.');
  }
  return readCommand(frame as Record<string, unknown>, text);
}

export function isRefused(decoded: Command | ChannelRequest | RefusedCommand): decoded is RefusedCommand {
  return 'error' in decoded;
}

function readCommand(frame: Record<string, unknown>, text: string): Command | RefusedCommand {
  const { type } = frame;
  const id = frame.id === undefined || frame.id === null ? undefined : frame.id;
  if (id !== undefined && !isCommandId(id)) {
    const text = `"id" is an integer, or a string of at most ${commandIdLengthMax} characters.`;
    return refused(undefined, undefined, 'bad_request', text);
  }
  switch (type) {
    case 'ping':
      return { type, id };
    case 'refresh':
      if (typeof frame.token !== 'string' || frame.token === '') {
        return refused(id, undefined, 'bad_request', '"token" is a non-empty string.');
      }
      return { type, id, token: frame.token };
    case 'subscribe':
      return readSubscribe(id, frame, text);
    case 'unsubscribe':
    case 'publish':
    case 'history':
    case 'presence':
      return readChannelCommand(type, id, frame, text);
    default:
      return refused(id, undefined, 'unknown_command', typeof type === 'string' ? undefined : '"type" is missing.');
  }
}

function readSubscribe(
  id: CommandId | undefined,
  frame: Record<string, unknown>,
  text: string,
): SubscribeCommand | RefusedCommand {
  const { channels } = frame;
  if (channels === undefined || channels === null) {
    const request = readChannelRequest(id, frame, isNestedTooDeeply(text));
    return isRefused(request) ? request : { type: 'subscribe', id, channels: [request] };
  }
  if (frame.channel !== undefined && frame.channel !== null) {
    return refused(id, undefined, 'bad_request', 'Give either "channel" or "channels".');
  }
  if (!Array.isArray(channels) || channels.length === 0 || channels.length > subscribeChannelsMax) {
    const text = `"channels" is a list of 1 to ${subscribeChannelsMax} objects {channel, since?, presence?, snapshot?}.`;
    return refused(id, undefined, 'bad_request', text);
  }
  const isDeep = isNestedTooDeeply(text);
  return { type: 'subscribe', id, channels: channels.map((each: unknown) => readListed(id, each, isDeep)) };
}

function readListed(id: CommandId | undefined, value: unknown, isDeep: boolean): ChannelRequest | RefusedCommand {
  if (typeof value !== 'object' || value === null) {
    return refused(
      id,
      undefined,
      'bad_request',
      '"channels" holds something that is no object {channel, since?, presence?, snapshot?}.',
    );
  }
  return readChannelRequest(id, value as Record<string, unknown>, isDeep);
}

/** Channels to which the server subscribes a connection by itself. */
export function subscribeUnasked(names: readonly string[]): SubscribeCommand {
  return { ...subscribeTo(names), isUnasked: true };
}

/** Channels that a connection names in its address. */
export function subscribeTo(names: readonly string[]): SubscribeCommand {
  return { type: 'subscribe', channels: names.map((channel) => readListed(undefined, { channel }, false)) };
}

function readChannelRequest(
  id: CommandId | undefined,
  { channel, since: given, presence, snapshot: rows }: Record<string, unknown>,
  isDeep: boolean,
): ChannelRequest | RefusedCommand {
  if (!isChannelName(channel)) return badChannel(id, channel);
  const since = given === null ? undefined : given;
  if (!isSince(since)) return refused(id, channel, 'bad_request', sinceShape);
  const snapshot = rows ?? undefined;
  if (snapshot !== undefined && typeof snapshot !== 'boolean') {
    return refused(id, channel, 'bad_request', '"snapshot" is true or false.');
  }
  const request = { channel, since, ...(snapshot === true ? { snapshot } : {}) };
  if (presence === undefined || presence === null || presence === false) return request;
  if (presence === true) return { ...request, presence: 'null' };
  if (typeof presence !== 'object' || Array.isArray(presence)) {
    return refused(id, channel, 'bad_request', '"presence" is true, or an object: the data to enter with.');
  }
  // It is printed again, which takes as much of the stack as it is deep.
  if (isDeep) return refused(id, channel, 'bad_request', nestingFault);
  return { ...request, presence: JSON.stringify(presence) };
}

const sinceShape = '"since" is {epoch: string, offset: whole number from 0}.';

function isSince(value: unknown): value is Position | undefined {
  return value === undefined || isPosition(value);
}

function readChannelCommand(
  type: 'unsubscribe' | 'publish' | 'history' | 'presence',
  id: CommandId | undefined,
  frame: Record<string, unknown>,
  text: string,
): Command | RefusedCommand {
  const { channel } = frame;
  if (!isChannelName(channel)) return badChannel(id, channel);
  if (type === 'unsubscribe') return { type, id, channel };
  if (type === 'presence') return readPresence(id, channel, frame, text);
  if (type === 'publish') return readPublish(id, channel, frame, text);

  const since = frame.since === null ? undefined : frame.since;
  if (!isSince(since)) return refused(id, channel, 'bad_request', sinceShape);

  const limit = frame.limit ?? historyLimitDefault;
  if (typeof limit !== 'number' || !Number.isInteger(limit) || limit < 1 || limit > historyLimitMax) {
    return refused(id, channel, 'bad_request', `"limit" is a whole number from 1 to ${historyLimitMax}.`);
  }
  const before = frame.before ?? undefined;
  if (before === undefined) return { type, id, channel, since, limit };
  if (since !== undefined) return refused(id, channel, 'bad_request', 'Give either "since" or "before".');
  if (!isBefore(before)) return refused(id, channel, 'bad_request', beforeShape);
  return { type, id, channel, before, limit };
}

export const beforeShape = `"before" is a number, or a text of 1 to ${beforeLengthMax} characters without NUL or broken UTF-8.`;

export function isBefore(value: unknown): value is string | number {
  if (typeof value === 'number') return Number.isFinite(value);
  return typeof value === 'string' && value !== '' && hasAtMost(value, beforeLengthMax) && isStorable(value);
}

function readPresence(
  id: CommandId | undefined,
  channel: ChannelName,
  frame: Record<string, unknown>,
  text: string,
): PresenceCommand | RefusedCommand {
  const limit = frame.limit ?? presenceLimitDefault;
  if (!isPresenceLimit(limit)) {
    return refused(id, channel, 'bad_request', `"limit" is a whole number from 0 to ${presenceLimitMax}.`);
  }
  if (frame.data === undefined) return { type: 'presence', id, channel, limit };
  if (isNestedTooDeeply(text)) return refused(id, channel, 'bad_request', nestingFault);
  return { type: 'presence', id, channel, limit, data: JSON.stringify(frame.data) };
}

export function isPresenceLimit(limit: unknown): limit is number {
  return typeof limit === 'number' && Number.isInteger(limit) && limit >= 0 && limit <= presenceLimitMax;
}

const nestingFault = `The frame is nested more than ${nestingMax} deep.`;

function readPublish(
  id: CommandId | undefined,
  channel: ChannelName,
  frame: Record<string, unknown>,
  text: string,
): PublishCommand | RefusedCommand {
  const { data, key, to } = frame;
  const echo = frame.echo ?? true;
  const dataText = data === undefined ? undefined : memberText(text, 'data');
  if (dataText === undefined) return refused(id, channel, 'bad_request', '"data" is missing.');
  if (isNestedTooDeeply(text)) return refused(id, channel, 'bad_request', nestingFault);
  if (typeof echo !== 'boolean') return refused(id, channel, 'bad_request', '"echo" is true or false.');
  if (key !== undefined && key !== null && !isIdempotencyKey(key)) {
    return refused(id, channel, 'bad_request', `"key" is not ${keyShape}.`);
  }
  if (to !== undefined && to !== null && !isConnectionId(to)) {
    return refused(id, channel, 'bad_request', '"to" is the id of a connection.');
  }
  const common = { type: 'publish', id, channel, data: singleLine(dataText), echo, key: key ?? undefined } as const;
  return to === undefined || to === null ? common : { ...common, to };
}

/** Completes "… is not". */
export const keyShape = `a text of 1 to ${keyLengthMax} characters without NUL or broken UTF-8`;

/** Half a surrogate pair has no UTF-8: a store would take any two such keys for the same. */
export function isIdempotencyKey(key: unknown): key is string {
  return typeof key === 'string' && key !== '' && hasAtMost(key, keyLengthMax) && isStorable(key);
}

function isStorable(text: string): boolean {
  return text.isWellFormed() && !text.includes('\u0000');
}

export function isConnectionId(id: unknown): id is string {
  return typeof id === 'string' && id.length > 0 && id.length <= connectionLengthMax && /^[a-z0-9]+$/.test(id);
}

function isCommandId(id: unknown): id is CommandId {
  return typeof id === 'number'
    ? Number.isSafeInteger(id)
    : typeof id === 'string' && hasAtMost(id, commandIdLengthMax);
}

/** The error repeats the name, so that the client can tell which of its channels is meant. */
function badChannel(id: CommandId | undefined, channel: unknown): RefusedCommand {
  return refused(id, typeof channel === 'string' ? channel : undefined, 'bad_channel');
}

function refused(
  id: CommandId | undefined,
  channel: string | undefined,
  code: 'bad_frame' | 'unknown_command' | 'bad_request' | 'bad_channel',
  message?: string,
): RefusedCommand {
  return { error: new RealtimeError(code, message), id, channel };
}
