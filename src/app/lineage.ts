// Watches whose database this is: one that was failed over or set back has another history, and the sync layer follows it.

import type { LayerName } from '../changes/layer-name.ts';
import { Lineage, type Seen } from '../database/lineage.ts';
import { HealthFault } from './causes.ts';
import type { CloseStack } from './close-stack.ts';
import { checkWrites, type NodeDatabase } from './database.ts';

import { systemClock } from '../time/clock.ts';
import type { OpenEngine } from '../sync/engine.ts';
import type { Health } from './health.ts';
import type { Logger } from './logger.ts';
import { patientStep } from './patient-step.ts';

export interface LineageParts {
  readonly database: NodeDatabase | undefined;
  readonly engine: OpenEngine;
  readonly health: Health;
  readonly log: Logger;
  readonly closing: CloseStack;
}

/** Undefined where the node has no database. */
export async function startLineage({
  database,
  engine,
  health,
  log,
  closing,
}: LineageParts): Promise<Lineage | undefined> {
  if (database === undefined) return undefined;
  const lineage = new Lineage({
    sql: database.sql,
    changed: (generation) => engine.follow?.(generation),
    failed: (error) => health.hint('database', error),
  });
  await patientStep('the database', () => lineage.start(), { log, clock: systemClock });
  closing.add('database watch', () => lineage.close());
  health.add('database', () => Promise.all([lineage.look(), checkWrites(database.sql)]));
  return lineage;
}

/** Changes that go to another layer are heard by nobody here. */
export async function checkLayer(seen: Seen | undefined, layer: LayerName): Promise<void> {
  const own = await layer.confirm(seen?.layer);
  if (seen?.layer === undefined || seen.layer === null || seen.layer === own) return;
  throw new HealthFault('table changes are relayed to another sync layer than that of this node');
}
