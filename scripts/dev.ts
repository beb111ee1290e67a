// `bun run dev`: everything a bare machine needs, then the server. Only Bun's own modules are imported before the
// dependencies are there.

import { installDependencies } from './install.ts';
import { runToEnd } from './run-to-end.ts';

await installDependencies();

const shutdownTimeout = process.env['SHUTDOWN_TIMEOUT'] || '3';
const env = {
  ...process.env,
  NODE_ENV: process.env['NODE_ENV'] || 'development',
  // Nobody waits half an hour for a server on their own desk.
  SHUTDOWN_TIMEOUT: shutdownTimeout,
};
// The server has its own deadline; this one is for a server that does not keep it.
const graceSeconds = (Number(shutdownTimeout) || 0) + 15;
const command = [process.execPath, '--no-orphans', 'src/main.ts', ...process.argv.slice(2)];
process.exit(await runToEnd(command, { env, graceSeconds }));
