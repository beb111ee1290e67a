// Whether the URL of the pool leads where the URL of the sessions does, and whether its role may use what is there. A name
// that was mistyped in one of the two would relay the outbox of one database while applications write into another.

import { RealtimeError } from '../protocol/realtime-error.ts';
import { connect, type Database } from './connect.ts';
import { unpreparedUrl } from './url.ts';

/** Two URLs that should lead to one database lead to two. */
export class AnotherDatabase extends Error {
  readonly code = 'ANOTHER_DATABASE';

  constructor() {
    super('DATABASE_URL and DATABASE_URL_DIRECT lead to different databases');
    this.name = 'AnotherDatabase';
  }
}

const applicationName = 'sobranie look at the database';

/**
 * Both have been looked at for a pooler, and the database of `directUrl` has been migrated. Throws `AnotherDatabase`, what
 * `refuseForeignOwner` throws, or the driver's errors.
 */
export async function refuseAnotherDatabase(url: string, directUrl: string): Promise<void> {
  const [name, directName] = await Promise.all([nameOf(url), nameOf(directUrl)]);
  if (name === undefined || name !== directName) throw new AnotherDatabase();
}

/** What the migration gave this database alone, but for copies of it; undefined where there was none. */
async function nameOf(url: string): Promise<string | undefined> {
  const sql = connect(unpreparedUrl(url), { applicationName, max: 1 });
  try {
    const [place] = await sql`
      select pg_catalog.concat_ws('.', d.oid, c.oid) as oids
      from pg_catalog.pg_class c
        join pg_catalog.pg_namespace n on n.oid = c.relnamespace
        join pg_catalog.pg_database d on d.datname = pg_catalog.current_database()
      where n.nspname = 'realtime' and c.relname = 'log'`;
    if (place === undefined) return undefined;
    await refuseForeignOwner(sql);
    const [log] = await sql`select topic from realtime.log`;
    return `${String(place['oids'])}.${String(log?.['topic'])}`;
  } finally {
    await sql.end({ timeout: 1 });
  }
}

/** Throws a plain error, which no retry helps, where the schema `realtime` is that of a role which this one does not act for. */
export async function refuseForeignOwner(sql: Database): Promise<void> {
  const [row] = await sql`
    select current_user as own, pg_catalog.pg_get_userbyid(n.nspowner) as owner
    from pg_catalog.pg_namespace n
    where n.nspname = 'realtime' and not pg_catalog.pg_has_role(n.nspowner, 'usage')`;
  if (row === undefined) return;
  const { own, owner } = row as { own: string; owner: string };
  throw new RealtimeError(
    'internal',
    `The schema "realtime" belongs to the role "${owner}", and this server runs as "${own}". ` +
      `Name "${owner}" in DATABASE_URL, or let "${own}" act for it: GRANT "${owner}" TO "${own}";`,
  );
}
