// `npm run dev`: the backend, with its database, and Vite. The backend starts again when one of its files changes; when
// one of the two ends by itself, or at Ctrl-C, both end.

import { watch } from 'node:fs';

const { PORT = '3000' } = process.env;
const own = ['server.ts', 'realtime.config.ts', 'schema.sql', '.env'];
const output = { stdin: 'ignore', stdout: 'inherit', stderr: 'inherit' } as const;

let isRestarting = false;
let server = startServer();
await ready();
const page = Bun.spawn(['node_modules/.bin/vite'], output);
void page.exited.then((code) => end(code));

watch(import.meta.dir, (_event, name) => {
  if (name !== null && own.includes(name) && !isRestarting) void restart();
});
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => void end(0));

function startServer(): Bun.Subprocess {
  const child = Bun.spawn([process.execPath, 'server.ts'], { ...output, cwd: import.meta.dir });
  void child.exited.then((code) => (isRestarting ? undefined : end(code)));
  return child;
}

/** Resolves when the backend answers. */
async function ready(): Promise<void> {
  const isUp = () =>
    fetch(`http://127.0.0.1:${PORT}/health/ready`)
      .then(({ ok }) => ok)
      .catch(() => false);
  while (!(await isUp())) await Bun.sleep(50);
}

async function restart(): Promise<void> {
  isRestarting = true;
  // An editor writes several files, or one in several steps.
  await Bun.sleep(100);
  console.log('restarting the backend');
  server.kill();
  await server.exited;
  isRestarting = false;
  server = startServer();
}

/** The database must be stopped before this process is gone. */
async function end(code: number): Promise<void> {
  isRestarting = true;
  // Vite has nothing to put in order, and would wait for pages that are open.
  page?.kill('SIGKILL');
  server.kill();
  await Promise.all([server.exited, page?.exited]);
  process.exit(code);
}
