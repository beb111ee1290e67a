// Puts the limits together: counted in Redis or PostgreSQL where nodes share one, else here.

import type { Clock } from '../time/clock.ts';
import type { Limits } from '../core/limits.ts';
import { countSpent, forgetSpent } from '../limits/postgres-count.ts';
import type { AllowanceOptions } from '../limits/allowance.ts';
import { remindEveryMs, type WholeCount } from '../limits/connection-count.ts';
import { NodeLimits, type LimitSettings } from '../limits/node-limits.ts';
import { SharedStore, type SharedStoreOptions } from '../limits/shared-store.ts';
import { postgresStore, redisStore, type StoreOptions } from '../limits/stores.ts';
import type { Nodes } from '../nodes/nodes.ts';
import type { CloseStack } from './close-stack.ts';
import type { NodeDatabase } from './database.ts';
import type { Logger } from './logger.ts';
import { nodeRedis } from './redis.ts';
import type { Settings } from '../settings/settings.ts';

export interface LimitParts {
  readonly settings: Settings;
  readonly database: NodeDatabase;
  /** This node among the others, as soon as it has joined them. */
  readonly nodes: () => Nodes | undefined;
  readonly clock: Clock;
  readonly log: Logger;
  readonly closing: CloseStack;
}

const sweepEveryMs = 5_000;
const forgetEveryMs = 60_000;

export async function createLimits(parts: LimitParts): Promise<Limits> {
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
  const limits = new NodeLimits({ ...values, sharedBy: await sharedBy(parts, values), whole, clock });
  every(closing, sweepEveryMs, 'limits', () => limits.sweep());
  every(closing, remindEveryMs, 'reminders of connections', () => limits.remind());
  return limits;
}

type SharedBy = (name: string, limit: number, windowMs: number) => AllowanceOptions['fetch'];

async function sharedBy(parts: LimitParts, values: LimitSettings): Promise<SharedBy> {
  const { settings, clock, log } = parts;
  const isCounting =
    values.commandsPerMinute +
      values.subscribesPerMinute +
      values.connectsPerSecondPerAddress +
      values.authFailuresPerMinutePerAddress >
    0;
  if (settings.sync === 'memory' || !isCounting) return () => undefined;
  const store = settings.sync === 'redis' ? await inRedis(parts) : inPostgres(parts);
  return (name, limit, windowMs) => {
    const shared = new SharedStore({
      limit,
      windowMs,
      shared: store({ name, limit, windowMs }),
      clock,
      log: (error) => {
        if (error === undefined) log.info({ limit: name }, 'a limit is counted over all nodes again');
        else log.warn({ err: error, limit: name }, 'a limit is counted on this node alone: its store does not answer');
      },
    });
    return (key, points) => shared.fetch(key, points);
  };
}

type Store = (options: StoreOptions) => SharedStoreOptions['shared'];

async function inRedis({ settings, closing }: LimitParts): Promise<Store> {
  const client = await nodeRedis(settings, closing);
  return (options) => redisStore(client, settings.redisPrefix, options);
}

function inPostgres({ database: { sql }, log, closing }: LimitParts): Store {
  every(closing, forgetEveryMs, 'limits that are over', () => {
    forgetSpent(sql).catch((error: unknown) => log.debug({ err: error }, 'limits that are over could not be deleted'));
  });
  return (options) => postgresStore((key, points, windowMs) => countSpent(sql, key, points, windowMs), options);
}

function every(closing: CloseStack, milliseconds: number, what: string, run: () => void): void {
  const timer = setInterval(run, milliseconds);
  closing.add(what, () => clearInterval(timer));
}
