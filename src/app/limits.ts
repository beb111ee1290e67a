// Puts the limits together: counted by the engine's store over all nodes, or on this node if it has none.

import type { Clock } from '../time/clock.ts';
import type { Limits } from '../core/limits.ts';
import { remindEveryMs, type WholeCount } from '../limits/connection-count.ts';
import { NodeLimits, type LimitSettings, type NodeLimitsOptions } from '../limits/node-limits.ts';
import { SharedLimit } from '../limits/shared-limit.ts';
import type { LimitStore } from '../limits/store.ts';
import type { Nodes } from '../nodes/nodes.ts';
import type { CloseStack } from './close-stack.ts';
import type { Logger } from './logger.ts';
import type { Settings } from '../settings/settings.ts';

export interface LimitParts {
  readonly settings: Settings;
  /** The engine's. */
  readonly store: LimitStore | undefined;
  /** This node among the others, as soon as it has joined them. */
  readonly nodes: () => Nodes | undefined;
  readonly clock: Clock;
  readonly log: Logger;
  readonly closing: CloseStack;
}

const sweepEveryMs = 5_000;

export function createLimits(parts: LimitParts): Limits {
  const { settings, nodes, clock, closing } = parts;
  const values: LimitSettings = {
    commandsPerMinute: settings.rateLimitPerMinute,
    subscribesPerMinute: settings.subscribesPerMinute,
    connectionsPerUser: settings.maxConnectionsPerUser,
    connectionsPerAddress: settings.maxConnectionsPerAddress,
    connectsPerSecondPerAddress: settings.connectsPerSecondPerAddress,
    authFailuresPerMinutePerAddress: settings.authFailuresPerMinutePerAddress,
  };
  const whole: WholeCount = {
    nodes: () => nodes()?.nodes.length ?? 1,
    connections: async (key) => (await nodes()?.cluster.connections(key))?.value ?? 0,
  };
  const limits = new NodeLimits({ ...values, sharedBy: sharedBy(parts), whole, clock });
  every(closing, sweepEveryMs, 'limits', () => limits.sweep());
  every(closing, remindEveryMs, 'reminders of connections', () => limits.remind());
  return limits;
}

/** How a limit of this name is counted over all nodes; undefined without a store for it. */
function sharedBy({ store, clock, log }: LimitParts): NodeLimitsOptions['sharedBy'] {
  if (store === undefined) return () => undefined;
  return (name, limit, windowMs) => {
    const shared = new SharedLimit({
      name,
      limit,
      windowMs,
      store,
      clock,
      log: (error) => {
        if (error === undefined) log.info({ limit: name }, 'a limit is counted over all nodes again');
        else log.warn({ err: error, limit: name }, 'a limit is counted on this node alone: its store does not answer');
      },
    });
    return (key, points) => shared.fetch(key, points);
  };
}

function every(closing: CloseStack, milliseconds: number, what: string, run: () => void): void {
  const timer = setInterval(run, milliseconds);
  closing.add(what, () => clearInterval(timer));
}
