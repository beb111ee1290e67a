// The commands that speak to the database: what is watched, the migrations, and taking all of it away again. They use
// DATABASE_URL as the server does, and DATABASE_URL_DIRECT before it.

import { createInterface } from 'node:readline/promises';
import { Option, type Command } from 'commander';
import { engines } from '../app/engines.ts';
import { connect, textArray, type Database } from '../database/connect.ts';
import { migrate } from '../database/migrate.ts';
import { shownDatabaseUrl } from '../database/url.ts';
import { readSettings, SettingsError } from '../settings/settings.ts';
import { CommandError, givenText, Output } from './output.ts';
import { reasonOf } from './server.ts';

interface DatabaseOptions {
  readonly database?: string;
  readonly json?: true;
}

const badSettingsExitCode = 78;

function onDatabase(command: Command): Command {
  return command
    .option('-d, --database <url>', 'the database (DATABASE_URL)')
    .option('--json', 'one JSON object per line, for programs');
}

export function addDatabase(program: Command): void {
  onDatabase(program.command('watch'))
    .description('publish every change of a table from now on')
    .argument('<table>', 'such as orders or shop.orders', givenText)
    .option('-c, --channel <template...>', "such as 'orders' or 'orders:{id}'; the table's name unless given")
    .option('--columns <names>', 'what leaves the database, comma-separated; all unless given')
    .addOption(
      new Option('--numbers <form>', 'how bigint and numeric are sent').choices(['json', 'text']).default('json'),
    )
    .action(watch);
  onDatabase(program.command('unwatch'))
    .description('end a watch')
    .argument('<table>', 'its name', givenText)
    .action(unwatch);
  onDatabase(program.command('watches')).description('the tables that are watched').action(watches);
  onDatabase(program.command('migrate'))
    .description('bring the database to the schema of this version; servers do the same when they start')
    .action(runMigrate);
  onDatabase(program.command('uninstall'))
    .description('take everything of Sobranie out of the database; says what, and asks')
    .option('--yes', 'do not ask')
    .action(uninstall);
}

function databaseUrl(options: DatabaseOptions): string {
  const { DATABASE_URL, DATABASE_URL_DIRECT } = process.env;
  try {
    // These two alone: a job that migrates need not know the server's keys.
    const given =
      options.database === undefined ? { DATABASE_URL, DATABASE_URL_DIRECT } : { DATABASE_URL: options.database };
    const settings = readSettings(given, engines);
    const url = settings.databaseUrlDirect ?? settings.databaseUrl;
    if (url !== undefined) return url;
  } catch (error) {
    if (!(error instanceof SettingsError)) throw error;
    throw new CommandError(error.message, badSettingsExitCode);
  }
  throw new CommandError(
    'DATABASE_URL is not set: name the database. That of a server with an embedded one is printed when it starts.',
    badSettingsExitCode,
  );
}

async function withDatabase(
  options: DatabaseOptions,
  run: (sql: Database, output: Output) => Promise<void>,
): Promise<void> {
  const url = databaseUrl(options);
  const sql = connect(url, { applicationName: 'sobranie command', max: 1 });
  try {
    await run(sql, new Output(options.json === true));
  } catch (error) {
    if (error instanceof CommandError) throw error;
    const reason = rootOf(error);
    const mend = /schema "realtime" does not exist/.test(reason) ? '; run `sobranie migrate` first' : '';
    throw new CommandError(`${shownDatabaseUrl(url)}: ${reason}${mend}`);
  } finally {
    await sql.end({ timeout: 5 });
  }
}

/** What the database or the network said; what wraps it repeats whole statements or says less. */
function rootOf(error: unknown): string {
  let root = error;
  while (root instanceof Error && root.cause !== undefined) root = root.cause;
  return reasonOf(root);
}

function watch(
  table: string,
  options: DatabaseOptions & {
    readonly channel?: readonly string[];
    readonly columns?: string;
    readonly numbers: string;
  },
): Promise<void> {
  return withDatabase(options, async (sql, output) => {
    const channels = options.channel === undefined ? null : textArray(options.channel);
    const columns =
      options.columns === undefined ? null : textArray(options.columns.split(',').map((name) => name.trim()));
    await sql`
      SELECT realtime.watch(${table}::text::regclass, ${channels}::text[], ${columns}::text[], ${options.numbers})`;
    output.result({ table, watched: true }, `${output.paint('green', table)} is watched`);
  });
}

function unwatch(table: string, options: DatabaseOptions): Promise<void> {
  return withDatabase(options, async (sql, output) => {
    await sql`SELECT realtime.unwatch(${table}::text::regclass)`;
    output.result({ table, watched: false }, `${table} is watched no more`);
  });
}

function watches(options: DatabaseOptions): Promise<void> {
  return withDatabase(options, async (sql, output) => output.table(await watchedTables(sql), 'no table is watched'));
}

async function watchedTables(sql: Database): Promise<Record<string, unknown>[]> {
  const [view] = await sql`SELECT to_regclass('realtime.watches') IS NOT NULL AS there`;
  if (view?.['there'] === true) {
    // Lists as lists: by itself the driver answers PostgreSQL's own text of an array. Of two members of a name the last counts.
    return [
      ...(await sql`SELECT w.*, to_json(w.channels) AS channels, to_json(w.columns) AS columns
        FROM realtime.watches w ORDER BY w."table"::text`),
    ];
  }
  return [
    ...(await sql`SELECT tgrelid::regclass::text AS "table" FROM pg_trigger WHERE tgname = 'realtime_insert' ORDER BY 1`),
  ];
}

async function runMigrate(options: DatabaseOptions): Promise<void> {
  const url = databaseUrl(options);
  const { remarks } = await migrate(url).catch((error: unknown) => {
    throw new CommandError(`${shownDatabaseUrl(url)} could not be migrated: ${rootOf(error)}`);
  });
  const output = new Output(options.json === true);
  for (const remark of remarks) output.progress(remark);
  output.result({ migrated: true, remarks }, `${shownDatabaseUrl(url)} is up to date`);
}

function uninstall(options: DatabaseOptions & { readonly yes?: true }): Promise<void> {
  return withDatabase(options, async (sql, output) => {
    const [found] = await sql`SELECT current_database() AS database, to_regnamespace('realtime') IS NOT NULL AS schema,
      to_regprocedure('realtime.uninstall()') IS NOT NULL AS removable`;
    const database = String(found?.['database']);
    if (found?.['schema'] !== true) {
      output.result({ removed: false }, `${database} holds nothing of Sobranie`);
      return;
    }
    if (found['removable'] !== true)
      throw new CommandError('this database is of another version: run `sobranie migrate` first');
    output.progress(`This takes out of ${database}:`);
    for (const line of await removedParts(sql)) output.progress(`  ${line}`);
    output.progress('Your own tables and their rows stay.');
    if (options.yes !== true && !(await isConfirmed(database))) throw new CommandError('nothing was removed');
    await sql`SELECT realtime.uninstall()`;
    output.result({ removed: true }, `${output.paint('green', 'removed')} from ${database}`);
  });
}

async function removedParts(sql: Database): Promise<string[]> {
  const tables = await watchedTables(sql);
  const names = tables.map((row) => String(row['table'] ?? row['target'] ?? Object.values(row)[0]));
  return [
    ...names.map((name) => `the watch of ${name}, with its triggers`),
    'the schema realtime: the outbox, the log with the history of all channels, presence, limits and tickets',
    'the function public.notify_realtime_event(), with the triggers that call it',
  ];
}

async function isConfirmed(database: string): Promise<boolean> {
  if (!process.stdin.isTTY) throw new CommandError('no terminal to ask at: nothing was removed; add --yes');
  const prompt = createInterface({ input: process.stdin, output: process.stderr });
  try {
    return (await prompt.question(`Type ${database} to go on: `)) === database;
  } finally {
    prompt.close();
  }
}
