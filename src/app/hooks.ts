// Opens the hooks, where an endpoint for them is set: what the core and presence tell of, and what sends it.

import type { Occupancy } from '../core/occupancy.ts';
import { unobserved } from '../core/occupancy.ts';
import type { Presence } from '../core/presence.ts';
import { connect } from '../database/connect.ts';
import { Delivery } from '../hooks/delivery.ts';
import { HookedPresence } from '../hooks/hooked-presence.ts';
import { Reporter } from '../hooks/reporter.ts';
import { Sender } from '../hooks/sender.ts';
import { HookStore } from '../hooks/store.ts';
import { Subjects } from '../hooks/subjects.ts';
import type { HookMetrics } from '../metrics/hook-metrics.ts';
import type { MetricSources } from '../metrics/metrics.ts';
import type { Settings } from '../settings/settings.ts';
import type { Clock } from '../time/clock.ts';
import type { CloseStack } from './close-stack.ts';
import type { NodeDatabase } from './database.ts';
import type { Logger } from './logger.ts';

export interface HookParts {
  readonly settings: Settings;
  /** Events wait there for the receiver; without it there are no hooks. */
  readonly database: NodeDatabase | undefined;
  readonly incarnation: string;
  readonly metrics: HookMetrics;
  readonly clock: Clock;
  readonly log: Logger;
  readonly closing: CloseStack;
}

export interface Hooks {
  readonly occupancy: Occupancy;
  observed(presence: Presence): Presence;
  readonly sources: MetricSources;
}

const none: Hooks = { occupancy: unobserved, observed: (presence) => presence, sources: {} };
const connectionsMax = 2;

export function openHooks({ settings, database, incarnation, metrics, clock, log, closing }: HookParts): Hooks {
  const { hooksUrl: url, hooksSecret, apiKey, presenceGrace } = settings;
  if (url === undefined) return none;
  if (database === undefined) {
    log.warn({}, 'HOOKS_URL is set, and this node has no database to keep events in: there are no hooks');
    return none;
  }
  const secret = hooksSecret ?? apiKey;
  if (secret === undefined) log.warn({}, 'hooks are not signed: set HOOKS_SECRET');
  const graceMs = presenceGrace * 1_000;
  const sql = connect(database.url, { applicationName: database.applicationName, max: connectionsMax });
  closing.add('hooks database', () => sql.end({ timeout: 1 }));
  const store = new HookStore(sql, incarnation, settings.hooksMax);
  const subjects = new Subjects(graceMs, clock);
  const warn = (message: string, error: unknown) => log.warn({ err: error }, message);
  const common = { store, observer: metrics, clock, log: warn };
  const delivery = new Delivery({ url, secret, timeoutMs: settings.hooksTimeout * 1_000, now: () => clock.now() });
  const sender = new Sender({ ...common, url: database.directUrl, delivery });
  sender.start();
  closing.add('hooks', () => sender.close());
  const reporter = new Reporter({ ...common, subjects, graceMs });
  reporter.start();
  closing.add('what hooks are about', () => reporter.close());
  return {
    occupancy: subjects,
    observed: (presence) => new HookedPresence(presence, subjects),
    sources: { hooksPending: () => sender.pending },
  };
}
