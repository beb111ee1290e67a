// What this node may ask of all nodes together, and the channel on which nodes speak to each other.

import { RealtimeError } from '../protocol/realtime-error.ts';
import type { ChannelRule } from '../rules/rules.ts';
import type { Rates } from './rates.ts';

/** Never a client's: the hub refuses to open, publish to or read it, whoever asks. */
export const controlChannel = '$control';

/** Fixed, whatever the configuration says: nodes with different rules would not hear each other. */
export const controlRule: ChannelRule = {
  pattern: '^\\$control$',
  recoverable: false,
  historySize: 0,
  historySeconds: 0,
};

export function refuseControl(channel: string): void {
  if (channel === controlChannel) throw new RealtimeError('forbidden', `${controlChannel} is for nodes alone.`);
}

export interface ChannelCount {
  readonly channel: string;
  readonly subscribers: number;
}

/** One connection of a user. */
export interface UserConnection {
  readonly connection: string;
  readonly node: string;
  readonly transport: string;
  /** When it opened, in Unix milliseconds. */
  readonly since: number;
  /** Those that it is subscribed to. */
  readonly channels: readonly string[];
}

/** A node that is known to be alive. */
export interface NodeState {
  readonly node: string;
  readonly connections: number;
  /** When it joined, in Unix milliseconds. */
  readonly since: number;
}

/** An answer of many nodes. Empty `incomplete`: all of them; else the nodes of which all or some is missing. */
export interface Gathered<Value> {
  readonly value: Value;
  readonly incomplete: readonly string[];
}

/** All answer within about a second, with what was gathered until then. */
export interface Cluster {
  /** All nodes known to be alive, by name. */
  nodes(): readonly NodeState[];
  /**
   * Asks a node to drain, as a signal to its process does. Resolves with false when no node has this name; throws
   * `unavailable` when the node does not answer. A node that drains already goes on with it.
   */
  drain(node: string): Promise<boolean>;
  /** Channels with subscribers, summed over all nodes. Does not throw. */
  channelCounts(): Promise<Gathered<readonly ChannelCount[]>>;
  /** How busy all nodes together were in each step after this one, see core/rates.ts. Does not throw. */
  rates(after: number): Promise<Gathered<Rates>>;
  /**
   * Closes the user's connections on every node and answers how many there were. Throws `unavailable` when the other
   * nodes could not be told; this node's are closed all the same, and asking again does no harm.
   */
  disconnect(user: string): Promise<Gathered<number>>;
  /**
   * Asks anew, on every node, what the user may, or everyone; the rules are read anew for everyone. Answers how many
   * subscriptions ended. Throws as `disconnect` does.
   */
  reauthorize(user: string | undefined): Promise<Gathered<number>>;
  /** Open connections counted under this key, on all nodes. Throws `unavailable` when the others could not be asked. */
  connections(of: string): Promise<Gathered<number>>;
  /** Connections subscribed to the channel, on all nodes. Throws as `connections` does. */
  subscribers(channel: string): Promise<Gathered<number>>;
  /** The user's connections on all nodes. Throws as `connections` does. */
  userConnections(user: string): Promise<Gathered<readonly UserConnection[]>>;
  /** Subscribes the user's WebSockets on every node, whatever rules say. Answers how many; throws as `disconnect` does. */
  subscribe(user: string, channel: string): Promise<Gathered<number>>;
  /** Ends the user's subscriptions to the channel on every node. Answers how many; throws as `disconnect` does. */
  unsubscribe(user: string, channel: string): Promise<Gathered<number>>;
  /**
   * Gives a `message` frame to one connection, on whichever node it is. Answers false when there is no such connection,
   * or when it is not subscribed to the channel, if one is named. Throws `unavailable` when its node does not answer.
   */
  send(connection: string, channel: string | undefined, frame: string): Promise<boolean>;
}
