// Tickets, counts and presence over the nodes' database, also for an engine whose layer carries publications alone.
// Presence needs notifications: where no adapter listens to them, a session of its own does.

import type { Clock } from '../../time/clock.ts';
import { connect, type Database } from '../../database/connect.ts';
import type { EngineParts, OpenEngine } from '../engine.ts';
import type { Beside, PostgresAdapter } from './adapter.ts';
import { besideMark } from './envelope.ts';
import { PostgresLimits } from './limits.ts';
import { PostgresListener } from './listener.ts';
import { PostgresPresence } from './presence.ts';
import { readLogState } from './queries.ts';
import { PostgresTickets } from './tickets.ts';

export type SharedStores = Pick<OpenEngine, 'tickets' | 'limits' | 'presence'>;

/**
 * Resolves when changes of presence are heard: by `adapter`, else by a session of their own. What it opens is closed with
 * the node.
 */
export async function openStores(
  parts: EngineParts,
  adapter?: Pick<PostgresAdapter, 'hearBeside'>,
): Promise<SharedStores> {
  const { database, log, closing } = parts;
  const { sql } = database;
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
  if (adapter !== undefined) return { tickets, limits, presence: new PostgresPresence({ sql, adapter }) };
  const notifications = new PresenceNotifications(parts);
  closing.add('notifications of presence', () => notifications.close());
  await notifications.start();
  return { tickets, limits, presence: new PostgresPresence({ sql, adapter: notifications }) };
}

class PresenceNotifications {
  readonly #sql: Database;
  readonly #clock: Clock;
  readonly #failed: (error: unknown) => void;
  readonly #listener: PostgresListener;
  #beside: Beside | undefined;
  #connections = 0;

  constructor({ incarnation, database, clock, log }: EngineParts) {
    const { sql, directUrl, applicationName } = database;
    this.#sql = sql;
    this.#clock = clock;
    this.#failed = (error) => log.error({ err: error }, 'notifications of presence could not be read');
    this.#listener = new PostgresListener(
      { connect: () => connect(directUrl, { applicationName, max: 1 }), sql, nodeId: incarnation, clock },
      {
        connected: () => this.#connected(),
        lost: (error) => this.#failed(error),
        appended: () => undefined,
        envelope: (payload) => this.#hear(payload),
        peer: () => undefined,
      },
    );
  }

  hearBeside(beside: Beside): void {
    this.#beside = beside;
  }

  async start(): Promise<void> {
    await this.#listener.start(await readLogState(this.#sql));
  }

  async close(): Promise<void> {
    this.#beside = undefined;
    await this.#listener.close();
  }

  #hear(payload: string): void {
    if (!payload.startsWith(besideMark)) return;
    try {
      this.#beside?.message(payload.slice(besideMark.length));
    } catch (error) {
      this.#failed(error);
    }
  }

  #connected(): void {
    if (this.#connections++ > 0) void this.#resume();
  }

  /** What was told meanwhile is lost, and the database may be another one, with another topic. */
  async #resume(): Promise<void> {
    for (const connection = this.#connections; connection === this.#connections && this.#beside !== undefined;) {
      try {
        this.#listener.follow(await readLogState(this.#sql));
        this.#beside?.interrupted();
        return;
      } catch (error) {
        this.#failed(error);
        await this.#clock.sleep(500);
      }
    }
  }
}
