// A process that owns an embedded PostgreSQL and nothing else, for the tests beside it: one that can be killed.

import { DataFolderInUse } from '../../src/embedded/data-lock.ts';
import { startEmbeddedPostgres } from '../../src/embedded/embedded-postgres.ts';

const print = (fields: object, message: string): void => console.error(`${message} ${JSON.stringify(fields)}`);

try {
  const directory = process.env['DATA_DIR'] ?? '.data';
  const database = await startEmbeddedPostgres({
    directory,
    log: { info: print, warn: print, error: print },
  });
  process.once('SIGTERM', () => void database.stop().then(() => process.exit(0)));
  console.log(`ready ${database.url}`);
} catch (error) {
  console.log(error instanceof Error ? error.message : String(error));
  process.exit(error instanceof DataFolderInUse ? 3 : 1);
}
