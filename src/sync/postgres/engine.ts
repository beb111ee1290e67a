// The engine over the node's own database. The relay appends to the log in the transaction that empties the outbox, and
// hands the rows to this node's adapter.

import { IntoLog } from '../../changes/into-log.ts';
import { connect } from '../../database/connect.ts';
import type { EngineParts, OpenEngine } from '../engine.ts';
import { PostgresAdapter } from './adapter.ts';
import { PostgresLimits } from './limits.ts';
import { PostgresPresence } from './presence.ts';
import { PostgresTickets } from './tickets.ts';

const readConnections = 2;

export function openPostgres({ incarnation, database, observer, clock, log, closing }: EngineParts): OpenEngine {
  const { sql, url, directUrl, applicationName } = database;
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
  });
  const tickets = new PostgresTickets({
    sql,
    failed: (error) => log.debug({ err: error }, 'expired tickets could not be deleted'),
  });
  closing.add('tickets', () => tickets.close());
  const limits = new PostgresLimits({
    sql,
    failed: (error) => log.debug({ err: error }, 'limits whose window has ended could not be deleted'),
  });
  closing.add('limit store', () => limits.close());
  const presence = new PostgresPresence({ sql, adapter });
  return {
    adapter,
    tickets,
    limits,
    presence,
    destination: (ports) => new IntoLog(ports, adapter),
    follow: () => adapter.follow(),
  };
}
