// What the package offers.

export { Channel } from './channel.ts';
export type { ChannelEvents, ChannelState, HistoryOptions, PublishOptions, SubscribeOptions } from './channel-types.ts';
export type { ConnectionEvents, ConnectionState, ConnectionStatus } from './connection-types.ts';
export type { Listener, Stop } from './emitter.ts';
export { SobranieError } from './errors.ts';
export type { SobranieErrorCode } from './errors.ts';
export type { ExactNumbers } from './exact-json.ts';
export type { TransportName } from './link.ts';
export { liveTable, LiveTable } from './live-table.ts';
export type { LiveTableOptions, LiveTableState, LiveTableStatus, RowOf } from './live-table.ts';
export type { ChannelName, DataOf } from './names.ts';
export type { Platform, PositionStorage, WebSocketLike } from './platform.ts';
export type { Presence } from './presence.ts';
export type {
  Change,
  ErrorCode,
  Gap,
  GapReason,
  History,
  Member,
  Message,
  Position,
  PresenceList,
  Sender,
  Snapshot,
  SubscriptionState,
} from './protocol.ts';
export type { RequestOptions } from './requests.ts';
export { Sobranie } from './sobranie.ts';
export type { SobranieOptions } from './sobranie.ts';
