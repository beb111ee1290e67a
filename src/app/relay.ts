// Opens the relay: gives its destination what that needs of the node, and tells the operator how it goes.

import type { LayerName } from '../changes/layer-name.ts';
import type { DestinationPorts } from '../changes/destination.ts';
import type { LogState } from '../changes/log-trimmer.ts';
import type { CaptureFault } from '../changes/housekeeping.ts';
import { OtherLayer, otherLayerMsMin, Relay, type RelayHealth, type RelayObserver } from '../changes/relay.ts';
import type { Lineage } from '../database/lineage.ts';
import type { Hub } from '../core/hub.ts';
import type { Metrics, MetricSources } from '../metrics/metrics.ts';
import type { Rules } from '../rules/rules.ts';
import { SettingsError, type Settings } from '../settings/settings.ts';
import type { OpenEngine } from '../sync/engine.ts';
import type { Clock } from '../time/clock.ts';
import type { Tracing } from '../tracing/tracing.ts';
import type { CloseStack } from './close-stack.ts';
import type { NodeDatabase } from './database.ts';
import { HealthFault, plainCause } from './causes.ts';
import type { Health } from './health.ts';
import type { Logger } from './logger.ts';
import { patientStep } from './patient-step.ts';

export interface RelayParts {
  readonly settings: Settings;
  readonly database: NodeDatabase | undefined;
  readonly engine: OpenEngine;
  /** Names the sync layer of this node. */
  readonly layer: LayerName;
  readonly lineage: Lineage | undefined;
  readonly rules: Rules;
  readonly hub: Hub;
  readonly metrics: Metrics;
  readonly health: Health;
  readonly clock: Clock;
  readonly tracing: Tracing | undefined;
  readonly log: Logger;
  readonly closing: CloseStack;
}

export async function startRelay(parts: RelayParts): Promise<MetricSources> {
  const { settings, database, engine, rules, hub, log, closing } = parts;
  if (!settings.role.has('relay') || database === undefined) return { relayLeader: () => false };
  /** Known while this node leads, once it has looked. */
  let waiting: { readonly rows: number; readonly lagSeconds: number } | undefined;
  let logState: LogState | undefined;
  let faults: readonly CaptureFault[] = [];
  const observer: RelayObserver = {
    leader: (leader) => {
      log.info({ leader }, leader ? 'relaying table changes' : 'no longer relaying table changes');
      waiting = undefined;
      logState = undefined;
    },
    batch: (_rows, dropped) => {
      for (let count = 0; count < dropped; count++) parts.metrics.error('bad_channel');
      if (dropped > 0) log.warn({ rows: dropped }, 'changes were dropped: their channel is not a valid name');
    },
    parked: (rows, error) => {
      parts.metrics.rowsParked(rows);
      log.error({ rows, err: error }, 'changes could not be carried and are parked: see realtime.parked');
    },
    waiting: (rows, lagSeconds) => (waiting = { rows, lagSeconds }),
    log: (state) => (logState = state),
    faults: (found) => {
      for (const { table, count, lastReason } of found) {
        const known = faults.find((each) => each.table === table)?.count ?? 0;
        if (count > known)
          log.warn({ table, count, reason: lastReason }, 'changes of a watched table could not be captured');
      }
      faults = found;
    },
    error: (error) => log.error({ err: error }, 'the relay failed and starts over'),
  };
  const ports: DestinationPorts = {
    rowBytesMax: settings.maxRowBytes,
    rules: rules.all,
    sql: database.sql,
    publish: (change) => hub.publish({ ...change, source: 'database' }),
    published: (channel) => parts.metrics.published('database', channel),
    settled: () => hub.settled(),
    failed: (message, error) => log.error({ err: error }, message),
  };
  const destination = engine.destination(ports);
  const relay = new Relay({
    url: database.relayUrl,
    applicationName: database.applicationName,
    destination: parts.tracing?.destination(destination) ?? destination,
    observer,
    layer: parts.layer,
    // Or this node would take changes of the new log for some that it has heard.
    leads: async () => parts.lineage?.followed(),
    clock: parts.clock,
    // A process that drains relays for its last clients.
    otherLayerMs: otherLayerMsMin + settings.drainWindow * 1_000,
    waitsFor: (layer) => log.warn({ layer }, 'waiting for a relay of another sync layer to end'),
  });
  await patientStep('the database', () => relay.start(), parts).catch((error: unknown) => {
    if (!(error instanceof OtherLayer)) throw error;
    throw new SettingsError([
      `SYNC: ${error.message}; give both the same sync layer, or this one a database of its own`,
    ]);
  });
  parts.health.add('relay', async () => checkRelay(relay.health()));
  closing.add('relay', () => relay.close());
  return {
    // A look that was under way when this node ceased to lead may answer late.
    outboxPending: () => (relay.health().leader ? waiting?.rows : undefined),
    outboxLagSeconds: () => (relay.health().leader ? waiting?.lagSeconds : undefined),
    logTrimLagSeconds: () => (relay.health().leader ? logState?.lagSeconds : undefined),
    logPublications: () => (relay.health().leader ? logState?.publications : undefined),
    relayLeader: () => relay.health().leader,
    captureFaults: () => (relay.health().leader ? faults : []),
  };
}

/** Throws when it does not work. A relay that stands by works as long as it is connected. */
function checkRelay({ up, fault, parksAll }: RelayHealth): void {
  if (fault !== undefined)
    throw new HealthFault(plainCause(fault) ?? 'the relay of table changes fails: the log says why', { cause: fault });
  if (!up) throw new HealthFault('the relay of table changes is not connected');
  if (parksAll) throw new HealthFault('no table change can be carried: all are parked');
}
