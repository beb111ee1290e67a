// The engine over the node's own database. The relay appends to the log in the transaction that empties the outbox, and
// hands the rows to this node's adapter. With another bus than the database's notifications it is the engine of that bus:
// the log, the stores and all that follows from them are the same.

import { fixedLayer } from '../../changes/layer-name.ts';
import { IntoLog } from '../../changes/into-log.ts';
import { connect } from '../../database/connect.ts';
import type { EngineLog, EngineParts, OpenEngine } from '../engine.ts';
import type { OwnBus } from '../log-bus.ts';
import { PostgresAdapter } from './adapter.ts';
import { openStores } from './stores.ts';

const readConnections = 2;

export async function openPostgres(parts: EngineParts, bus?: OwnBus): Promise<OpenEngine> {
  const { incarnation, observer, clock, log } = parts;
  const { sql, url, directUrl, applicationName } = parts.database;
  const adapter = new PostgresAdapter({
    sql,
    reads: connect(url, { applicationName, max: readConnections }),
    connectDirect: (answerSeconds) =>
      connect(directUrl, { applicationName, max: 1, ...(answerSeconds === undefined ? {} : { answerSeconds }) }),
    nodeId: incarnation,
    applicationName,
    clock,
    observer,
    log: (message, error) => log.error({ err: error }, message),
    bus,
    far: (count) => tellFar(log, bus?.name, count),
  });
  const stores = await openStores(parts, adapter);
  return {
    adapter,
    ...stores,
    destination: (ports) => new IntoLog(ports, adapter.reader),
    // The log names the layer, not its bus: positions are good with every bus.
    layer: fixedLayer('postgres'),
    follow: () => adapter.follow(),
  };
}

function tellFar(log: EngineLog, bus = '', count: number): void {
  if (count === 0) {
    log.debug({ err: undefined }, `all nodes are on the same ${bus} again`);
    return;
  }
  const err = new Error(
    `other nodes of this database that have another SYNC or another ${bus}, or cannot reach it: ${count}. They are` +
      ' reached by the notifications of the database, which is slower',
  );
  log.warn({ err }, 'not all nodes are on the same bus');
}
