// `bun run db:migrate`: brings the database of DATABASE_URL to the schema that this version needs, for deployments that
// want to do so before the servers start. The servers do the same by themselves.

import { engines } from '../src/app/engines.ts';
import { readSettings, SettingsError, type Settings } from '../src/settings/settings.ts';
import { migrate } from '../src/database/migrate.ts';
import { shownDatabaseUrl } from '../src/database/url.ts';

function settingsOrExit(): Settings {
  try {
    // These two alone: a job that migrates need not know the server's keys.
    const { DATABASE_URL, DATABASE_URL_DIRECT } = process.env;
    return readSettings({ DATABASE_URL, DATABASE_URL_DIRECT }, engines);
  } catch (error) {
    if (!(error instanceof SettingsError)) throw error;
    console.error(error.message);
    process.exit(78);
  }
}

const { databaseUrl, databaseUrlDirect } = settingsOrExit();
const url = databaseUrlDirect ?? databaseUrl;
if (url === undefined) {
  console.error('DATABASE_URL is not set: name the database to migrate. The embedded one migrates itself at start.');
  process.exit(78);
}
try {
  const { remarks } = await migrate(url);
  for (const remark of remarks) console.log(remark);
  console.log(`${shownDatabaseUrl(url)} is up to date`);
} catch (error) {
  console.error(`${shownDatabaseUrl(url)} could not be migrated: ${rootOf(error)}`);
  process.exit(1);
}

/** What the database or the network said; what wraps it repeats whole statements or says less. */
function rootOf(error: unknown): string {
  let root = error;
  while (root instanceof Error && root.cause !== undefined) root = root.cause;
  return root instanceof Error ? root.message : String(root);
}
