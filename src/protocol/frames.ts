// Frames from the server to a client: their shapes, and the builders of those that are built often.
// The same objects are a WebSocket's text frames and the `data` of server-sent events.

import type { ErrorCode, GapReason } from './codes.ts';
import type { Position } from './position.ts';

/** Identifies a command in its reply: an integer, or a text of at most 64 characters. */
export type CommandId = number | string;

export interface MessageSender {
  readonly user: string | null;
  readonly connection: string;
}

export interface WelcomeFrame {
  readonly type: 'welcome';
  readonly connection: string;
  readonly user: string | null;
  readonly node: string;
  /** Seconds between two pings of the server: of an event stream, between two keep-alives. */
  readonly heartbeat: number;
  /** Event streams only: the channels in the order of the request. */
  readonly channels?: readonly SubscriptionState[];
}

/** How a subscription began. */
export interface SubscriptionState {
  readonly channel: string;
  readonly recoverable: boolean;
  readonly epoch?: string;
  /** The channel's head when the subscription became live. */
  readonly offset?: number;
  /** Present when the client sent `since`: whether everything after it follows. */
  readonly recovered?: boolean;
}

export interface SubscribedFrame extends SubscriptionState {
  readonly type: 'subscribed';
  readonly id?: CommandId;
}

export interface UnsubscribedFrame {
  readonly type: 'unsubscribed';
  readonly id?: CommandId;
  readonly channel: string;
  /** Present when the server ended the subscription. */
  readonly reason?: string;
}

export interface PublishedFrame {
  readonly type: 'published';
  readonly id?: CommandId;
  readonly channel: string;
  readonly epoch?: string;
  readonly offset?: number;
}

export interface MessageFrame {
  readonly type: 'message';
  readonly channel: string;
  readonly offset?: number;
  readonly data: unknown;
  /** Unix milliseconds. */
  readonly at: number;
  readonly from?: MessageSender;
  /** It was sent to this connection alone: it has no offset, and no history keeps it. */
  readonly direct?: true;
}

export interface HistoryFrame {
  readonly type: 'history';
  readonly id?: CommandId;
  readonly channel: string;
  readonly epoch: string;
  /** The channel's head. */
  readonly offset: number;
  readonly messages: readonly MessageFrame[];
  /** With `before`: the rows that come before it, the nearest first. */
  readonly rows?: readonly unknown[];
  readonly complete: boolean;
}

export interface GapFrame {
  readonly type: 'gap';
  readonly channel: string;
  readonly epoch: string;
  readonly offset: number;
  readonly reason: GapReason;
}

/** Rows that are true at a position: later messages go on exactly there. */
export interface SnapshotFrame {
  readonly type: 'snapshot';
  readonly channel: string;
  readonly rows: readonly unknown[];
  readonly epoch: string;
  readonly offset: number;
  /** Further rows follow in another frame. */
  readonly more: boolean;
}

/** One connection in a channel's presence. */
export interface Member {
  readonly user: string | null;
  readonly connection: string;
  /** What it entered with, or replaced that by; null for none. */
  readonly data: unknown;
  /** Unix milliseconds. */
  readonly since: number;
}

/** Who is in a channel: the reply to `presence`, and a push after which the client forgets what it knew before. */
export interface PresenceFrame {
  readonly type: 'presence';
  readonly id?: CommandId;
  readonly channel: string;
  /** Members in all, also where `members` lists only the first of them. */
  readonly count: number;
  /** Counts the changes that the list holds: the next push has the next number. */
  readonly version: number;
  readonly members: readonly Member[];
}

/** One change of a channel's presence. */
export interface PresenceChangeFrame {
  readonly type: 'join' | 'leave' | 'update';
  readonly channel: string;
  readonly member: Member;
  /** `update` only: this connection of the user's is no member any more. */
  readonly left?: string;
  readonly version: number;
}

export interface PongFrame {
  readonly type: 'pong';
  readonly id?: CommandId;
}

export interface RefreshedFrame {
  readonly type: 'refreshed';
  readonly id?: CommandId;
  /** Unix seconds at which the new token expires. */
  readonly expires?: number;
}

export interface DrainFrame {
  readonly type: 'drain';
  /** Milliseconds after which this client should reconnect. */
  readonly after: number;
  /** Unix milliseconds at which the server closes the connections that are left. */
  readonly deadline: number;
}

/** Event streams only, if the client asked for it: by it a page can see that the stream is alive. */
export interface PingFrame {
  readonly type: 'ping';
}

export interface ErrorFrame {
  readonly type: 'error';
  readonly id?: CommandId;
  readonly channel?: string;
  readonly code: ErrorCode;
  readonly message: string;
  readonly retryable: boolean;
  /** Seconds. */
  readonly retryAfter?: number;
  /** Unix seconds at which the token will expire. */
  readonly expires?: number;
}

export type ServerFrame =
  | WelcomeFrame
  | SubscribedFrame
  | UnsubscribedFrame
  | PublishedFrame
  | MessageFrame
  | HistoryFrame
  | GapFrame
  | SnapshotFrame
  | PresenceFrame
  | PresenceChangeFrame
  | PingFrame
  | PongFrame
  | RefreshedFrame
  | DrainFrame
  | ErrorFrame;

export function encodeFrame(frame: ServerFrame): string {
  return JSON.stringify(frame);
}

/** The parts of a `message` frame. `data` is JSON text, and is sent exactly as it was received. */
export interface MessageParts {
  readonly channel: string;
  readonly offset: number;
  readonly data: string;
  readonly at: number;
  readonly from?: MessageSender | undefined;
}

/** To one connection alone. Without a channel, a backend sent it to the connection itself. */
export function directFrame(
  message: Omit<MessageParts, 'channel' | 'offset'> & { channel: string | undefined },
): string {
  const channel = message.channel === undefined ? '' : `,"channel":"${message.channel}"`;
  const from = message.from === undefined ? '' : `,"from":${senderJson(message.from)}`;
  return `{"type":"message"${channel},"data":${message.data},"at":${message.at}${from},"direct":true}`;
}

/** An offset of 0 means an ephemeral publication, whose frame has no offset. */
export function messageFrame(message: MessageParts): string {
  const offset = message.offset === 0 ? '' : `,"offset":${message.offset}`;
  const from = message.from === undefined ? '' : `,"from":${senderJson(message.from)}`;
  return `{"type":"message","channel":"${message.channel}"${offset},"data":${message.data},"at":${message.at}${from}}`;
}

const dataKey = '"data":';

/** What stands before the data and after them. Large data may be encoded beside them, without one text of it all. */
export function messageFrameAround({ channel, offset, at, from }: MessageParts): readonly [string, string] {
  const frame = messageFrame({ channel, offset, at, from, data: '' });
  // No channel's name has a quotation mark.
  const end = frame.indexOf(dataKey) + dataKey.length;
  return [frame.slice(0, end), frame.slice(end)];
}

function senderJson(from: MessageSender): string {
  const user = from.user === null ? 'null' : JSON.stringify(from.user);
  return `{"user":${user},"connection":${JSON.stringify(from.connection)}}`;
}

/** Splices frames that are already text into a `history` reply. */
export function historyFrame(
  id: CommandId | undefined,
  channel: string,
  head: Position,
  messages: readonly string[],
  complete: boolean,
): string {
  const start = `{"type":"history"${idMember(id)},"channel":"${channel}","epoch":${JSON.stringify(head.epoch)}`;
  return `${start},"offset":${head.offset},"messages":[${messages.join(',')}],"complete":${complete}}`;
}

/** `rows` are JSON texts on one line. */
export function snapshotFrame(channel: string, rows: readonly string[], position: Position, more: boolean): string {
  const end = `"epoch":${JSON.stringify(position.epoch)},"offset":${position.offset},"more":${more}}`;
  return `{"type":"snapshot","channel":"${channel}","rows":[${rows.join(',')}],${end}`;
}

/** Rows that are older than the history; JSON texts on one line. */
export function olderFrame(
  id: CommandId | undefined,
  channel: string,
  head: Position,
  rows: readonly string[],
  complete: boolean,
): string {
  const start = `{"type":"history"${idMember(id)},"channel":"${channel}","epoch":${JSON.stringify(head.epoch)}`;
  return `${start},"offset":${head.offset},"messages":[],"rows":[${rows.join(',')}],"complete":${complete}}`;
}

/** A list of members as it goes out: `members` is a JSON array as text, which may be shared by many replies. */
export interface PresenceList {
  readonly count: number;
  readonly version: number;
  readonly members: string;
}

export function presenceFrame(id: CommandId | undefined, channel: string, list: PresenceList): string {
  const start = `{"type":"presence"${idMember(id)},"channel":"${channel}"`;
  return `${start},"count":${list.count},"version":${list.version},"members":${list.members}}`;
}

/** `member` is JSON text. */
export function presenceChangeFrame(
  type: PresenceChangeFrame['type'],
  channel: string,
  change: { readonly member: string; readonly left?: string | undefined; readonly version: number },
): string {
  const left = change.left === undefined ? '' : `,"left":"${change.left}"`;
  return `{"type":"${type}","channel":"${channel}","member":${change.member}${left},"version":${change.version}}`;
}

/** The reply to each publish, spliced because it is as frequent as publications are. */
export function publishedFrame(id: CommandId | undefined, channel: string, position: Position | undefined): string {
  const where = position === undefined ? '' : `,"epoch":"${position.epoch}","offset":${position.offset}`;
  return `{"type":"published"${idMember(id)},"channel":"${channel}"${where}}`;
}

function idMember(id: CommandId | undefined): string {
  if (id === undefined) return '';
  return typeof id === 'number' ? `,"id":${id}` : `,"id":${JSON.stringify(id)}`;
}

/** For frames that repeat the command's id. */
export function withId(id: CommandId | undefined): { id?: CommandId } {
  return id === undefined ? {} : { id };
}
