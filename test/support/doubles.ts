// Ports that let everything pass and report to nobody, for tests that look at something else.

import type { Access } from '../../src/core/access.ts';
import type { Limits } from '../../src/core/limits.ts';
import type { HubObserver, SyncObserver } from '../../src/core/observer.ts';
import { isServerChannel } from '../../src/protocol/channel.ts';

/** Everyone may do everything, but the server's own channels are written by the server alone. */
export const openAccess: Access = {
  may: (_identity, action, channel) => action !== 'publish' || !isServerChannel(channel),
  subscribersMax: () => undefined,
  joined: () => [],
  membersMax: () => 0,
  generation: 0,
  renew: () => Promise.resolve(),
};

const never = (): undefined => undefined;

export const unlimited: Limits = {
  command: never,
  subscribe: (_caller, channels) => ({ count: channels, refusal: undefined }),
  arrival: never,
  authentication: never,
  authenticationFailed: never,
  refreshing: never,
  refreshFailed: never,
  countConnections: never,
  connection: never,
  joined: never,
  left: never,
  connectionsOf: () => 0,
};

const nothing = (): void => undefined;

export const silentObserver: HubObserver & SyncObserver = {
  connection: nothing,
  disconnection: nothing,
  received: nothing,
  published: nothing,
  delivered: nothing,
  sent: nothing,
  broadcastFailed: nothing,
  lost: nothing,
  recovery: nothing,
  historyRead: nothing,
  error: nothing,
  rateLimited: nothing,
  up: nothing,
  message: nothing,
  delay: nothing,
  reconnected: nothing,
  failed: nothing,
};
