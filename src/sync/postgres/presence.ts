// The presence store over PostgreSQL: functions of the database change the members of a channel behind the lock of its
// row, count the change and notify, in one transaction. Notifications are heard by the sync adapter's listener, which
// hears those of all channels: what nobody here watches is dropped.

import { textArray, unavailable, type Database } from '../../database/connect.ts';
import type {
  Applied,
  BuriedMember,
  Change,
  ListVersion,
  PresenceEvents,
  PresenceStore,
  SignOfLife,
  Snapshot,
} from '../../presence/store.ts';
import { readTold } from '../../presence/told-line.ts';
import { within } from '../../time/within.ts';
import type { PostgresAdapter } from './adapter.ts';

export interface PostgresPresenceOptions {
  readonly sql: Database;
  /** Whose listener hears what is told. */
  readonly adapter: Pick<PostgresAdapter, 'hearBeside'>;
}

/** A batch of members takes longer than a single query, and a database that is being started even longer. */
const answerTimeoutMs = 2_000;
const buriedAtOnce = 200;
/** One statement finds so many by their key in a millisecond or two. */
const positionsMax = 500;

export class PostgresPresence implements PresenceStore {
  readonly positionsMax = positionsMax;
  readonly #options: PostgresPresenceOptions;
  readonly #watched = new Set<string>();
  #events: PresenceEvents | undefined;

  constructor(options: PostgresPresenceOptions) {
    this.#options = options;
  }

  start(events: PresenceEvents): void {
    this.#events = events;
    this.#options.adapter.hearBeside({
      message: (text) => this.#heard(text),
      interrupted: () => events.interrupted(),
    });
  }

  async apply(node: string, changes: readonly Change[]): Promise<readonly Applied[]> {
    const { sql } = this.#options;
    const wishes = JSON.stringify(changes.map(wishOf));
    const rows = await inTime(sql<{ epoch: string; version: number; told: string | null; is_full: boolean }[]>`
      SELECT epoch, version, told, is_full FROM realtime.presence_apply(${node}, ${wishes}::text::jsonb)`);
    return rows.map(({ epoch, version, told, is_full: isFull }) => ({
      // A channel without a change yet has no memory.
      epoch: version === 0 ? '' : epoch,
      version,
      told: told === null ? undefined : readTold(told),
      isFull,
    }));
  }

  watch(channel: string): Promise<void> {
    this.#watched.add(channel);
    return Promise.resolve();
  }

  unwatch(channel: string): void {
    this.#watched.delete(channel);
  }

  async read(channel: string): Promise<Snapshot> {
    const { sql } = this.#options;
    // One statement sees one state of both tables.
    const rows = await inTime(sql<
      { epoch: string; version: number; connection: string | null; node: string; member: string }[]
    >`
      SELECT c.epoch, c.version, m.connection, m.node, m.member
      FROM realtime.presence_channels c LEFT JOIN realtime.presence_members m ON m.channel = c.channel
      WHERE c.channel = ${channel} AND c.version > 0`);
    const [first] = rows;
    const members = rows.flatMap(({ connection, node, member }) =>
      connection === null ? [] : [{ connection, node, member }],
    );
    return { epoch: first?.epoch ?? '', version: first?.version ?? 0, members };
  }

  async positions(channels: readonly string[]): Promise<readonly ListVersion[]> {
    const { sql } = this.#options;
    const rows = await inTime(sql<{ channel: string; epoch: string; version: number }[]>`
      SELECT channel, epoch, version FROM realtime.presence_channels
      WHERE channel = ANY (${textArray(channels)}::text[]) AND version > 0`);
    const found = new Map(rows.map(({ channel, epoch, version }) => [channel, { epoch, version }]));
    return channels.map((channel) => found.get(channel) ?? { epoch: '', version: 0 });
  }

  async live(node: string, milliseconds: number): Promise<SignOfLife> {
    const { sql } = this.#options;
    const [row] = await inTime(sql<{ is_known: boolean; dead: string; next_death_ms: number | null }[]>`
      SELECT is_known, array_to_json(dead)::text AS dead, next_death_ms
      FROM realtime.presence_live(${node}, ${milliseconds})`);
    if (row === undefined) throw new Error('the database answered no row');
    return {
      isKnown: row.is_known,
      dead: JSON.parse(row.dead) as string[],
      nextDeathMs: row.next_death_ms ?? undefined,
    };
  }

  async end(node: string, milliseconds: number): Promise<void> {
    const { sql } = this.#options;
    await inTime(sql`SELECT FROM realtime.presence_live(${node}, ${milliseconds})`);
  }

  async suspect(_channel: string, nodes: readonly string[], milliseconds: number): Promise<void> {
    const { sql } = this.#options;
    await inTime(sql`
      INSERT INTO realtime.presence_nodes (node, dies_at)
      SELECT node, clock_timestamp() + ${milliseconds}::integer * interval '1 millisecond'
      FROM unnest(${textArray(nodes)}::text[]) AS node
      ON CONFLICT DO NOTHING`);
  }

  async bury(node: string): Promise<{ isDone: boolean; told: readonly BuriedMember[] }> {
    const { sql } = this.#options;
    const rows = await inTime(sql<{ is_done: boolean; channel: string | null; told: string }[]>`
      SELECT is_done, channel, told FROM realtime.presence_bury(${node}, ${buriedAtOnce})`);
    return {
      isDone: rows[0]?.is_done === true,
      told: rows.flatMap(({ channel, told }) => (channel === null ? [] : [{ channel, told: readTold(told) }])),
    };
  }

  close(): Promise<void> {
    this.#events = undefined;
    this.#watched.clear();
    return Promise.resolve();
  }

  #heard(text: string): void {
    const [channel = '', epoch = '', ...lines] = text.split('\n');
    if (this.#watched.has(channel)) this.#events?.changed(channel, epoch, lines.map(readTold));
  }
}

function wishOf(change: Change): Readonly<Record<string, unknown>> {
  const { kind, channel, connection } = change;
  if (change.kind !== 'enter') return { kind, channel, connection };
  const { member, membersMax: most } = change;
  const { user, data } = member;
  return { kind, channel, connection, user, name: user === null ? 'null' : JSON.stringify(user), data, most };
}

/** The driver would wait as long as the database is away. */
async function inTime<Value>(answer: PromiseLike<Value>): Promise<Value> {
  try {
    return await within(answer, answerTimeoutMs, 'the answer of the database');
  } catch (error) {
    throw unavailable(error);
  }
}
