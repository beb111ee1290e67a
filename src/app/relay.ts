// Starts the relay and tells it where table changes go: into this database's log, or into another adapter's.

import { CarryingSink } from '../changes/carrying-sink.ts';
import type { LogSink, RelayObserver } from '../changes/relay-sink.ts';
import { Relay } from '../changes/relay.ts';
import type { Hub } from '../core/hub.ts';
import type { Rules } from '../rules/rules.ts';
import type { SyncAdapter } from '../core/sync-adapter.ts';
import type { Metrics, MetricSources } from '../metrics/metrics.ts';
import { PostgresAdapter } from '../sync/postgres/adapter.ts';
import type { CloseStack } from './close-stack.ts';
import type { NodeDatabase } from './database.ts';
import type { Logger } from './logger.ts';
import type { Settings } from '../settings/settings.ts';

export interface RelayParts {
  readonly settings: Settings;
  readonly database: NodeDatabase;
  readonly adapter: SyncAdapter;
  readonly rules: Rules;
  readonly hub: Hub;
  readonly metrics: Metrics;
  readonly log: Logger;
  readonly closing: CloseStack;
}

export async function startRelay(parts: RelayParts): Promise<MetricSources> {
  const { settings, database, adapter, rules, hub, log, closing } = parts;
  if (!settings.role.has('relay')) return {};
  const waiting = { rows: 0, lagSeconds: 0 };
  const observer: RelayObserver = {
    leader: (leader) => log.info({ leader }, leader ? 'relaying table changes' : 'no longer relaying table changes'),
    batch: (_rows, dropped) => {
      for (let count = 0; count < dropped; count++) parts.metrics.error('bad_channel');
      if (dropped > 0) log.warn({ rows: dropped }, 'changes were dropped: their channel is not a valid name');
    },
    waiting: (rows, lagSeconds) => Object.assign(waiting, { rows, lagSeconds }),
    error: (error) => {
      log.error({ err: error }, 'the relay met an error and starts over');
      // Its last batch may have been committed without reaching this node.
      if (adapter instanceof PostgresAdapter) adapter.catchUp();
      if (sink instanceof CarryingSink) sink.forgetSource();
    },
  };
  const sink =
    adapter instanceof PostgresAdapter ? logSink(adapter, hub, log) : new CarryingSink(hub, () => logEpoch(database));
  const relay = new Relay({
    url: database.directUrl,
    applicationName: database.applicationName,
    rules: rules.all,
    sink,
    observer,
    clock: hub.clock,
  });
  await relay.start();
  closing.add('relay', () => relay.close());
  return {
    outboxPending: () => waiting.rows,
    outboxLagSeconds: () => waiting.lagSeconds,
    relayLeader: () => relay.health().leader,
  };
}

/** What the relay has appended goes to this node's own reader without a detour. */
function logSink(adapter: PostgresAdapter, hub: Hub, log: Logger): LogSink {
  return {
    kind: 'log',
    delivered(rows) {
      for (const { channel, seq } of rows) if (seq > 0) hub.observer.published('database', channel);
      const logged = rows.every(({ seq }) => seq > 0) ? rows : rows.filter(({ seq }) => seq > 0);
      if (logged.length < rows.length) {
        for (const { channel, data, seq } of rows) {
          if (seq > 0) continue;
          // Ephemeral: worth nothing to a node that cannot hear it now.
          publishEphemeral(hub, channel, data).catch((error: unknown) => {
            log.debug({ err: error }, 'an ephemeral change did not reach other nodes');
          });
        }
      }
      return adapter.hand(logged);
    },
  };
}

async function publishEphemeral(hub: Hub, channel: string, data: string): Promise<void> {
  await hub.publish({ channel, data, source: 'database' });
}

/** The name of the database's log, which a fresh copy of the database does not share. */
async function logEpoch({ sql }: NodeDatabase): Promise<string> {
  const [row] = await sql<{ epoch: string }[]>`SELECT epoch FROM realtime.log`;
  if (row === undefined) throw new Error('the table realtime.log is empty');
  return row.epoch;
}
