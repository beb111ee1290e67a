// Tells drizzle-kit where the schema is and where its migrations go: `bunx drizzle-kit generate --config
// drizzle/drizzle.config.ts`, with `--custom` for functions and triggers, which the schema cannot express.

import { defineConfig } from 'drizzle-kit';

export default defineConfig({
  dialect: 'postgresql',
  schema: './drizzle/schema.ts',
  out: './migrations',
  schemaFilter: ['realtime'],
  migrations: { schema: 'realtime', table: 'migrations' },
});
