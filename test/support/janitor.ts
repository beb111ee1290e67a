// Ends what the tests leave running and removes their folders, however the test process ends. `bun test` fires no exit
// event, and a killed process fires none anyway, so this is a second process in a session of its own: it is told
// through a named pipe what to look after, and goes to work when the kernel says that the last writer is gone.

import { closeSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { systemErrorCode } from '../../src/embedded/embedded-error.ts';
import { endLeftovers } from '../../src/embedded/process.ts';

type Note =
  | { readonly kind: 'process' | 'ended'; readonly pid: number }
  | { readonly kind: 'folder'; readonly path: string }
  | { readonly kind: 'removed'; readonly path: string };

interface Janitor {
  readonly pipe: number;
  /** Resolves when it has opened the pipe. Before that the pipe must not be closed: it would wait for a writer for ever. */
  readonly opened: Promise<unknown>;
  /** Resolves when it has cleaned and gone. */
  gone(): Promise<unknown>;
}

let janitor: Janitor | undefined;

/** A new folder that is removed after the tests; a PostgreSQL that works in it or its `postgres` is ended first. */
export function temporaryFolder(purpose = 'data'): string {
  const path = makeFolder(purpose);
  tell({ kind: 'folder', path });
  return path;
}

/** Ends what works in such a folder and removes it before its time. */
export async function removeFolder(path: string): Promise<void> {
  await clean(path);
  tell({ kind: 'removed', path });
}

/** A process that is killed after the tests if it has not ended by then. */
export function endAfterTests(child: Bun.Subprocess): void {
  tell({ kind: 'process', pid: child.pid });
  // A pid that was given back may by then be someone else's.
  void child.exited.then(() => tell({ kind: 'ended', pid: child.pid }));
}

/** Has everything cleaned now; resolves when it is. */
export async function cleanUp(): Promise<void> {
  const ending = janitor;
  janitor = undefined;
  if (ending === undefined) return;
  await ending.opened;
  closeSync(ending.pipe);
  await ending.gone();
}

function makeFolder(purpose: string): string {
  return mkdtempSync(join(tmpdir(), `sobranie-test-${purpose}-${process.pid}-`));
}

function tell(note: Note): void {
  janitor ??= startJanitor();
  writeSync(janitor.pipe, `${JSON.stringify(note)}\n`);
}

function startJanitor(): Janitor {
  const folder = makeFolder('janitor');
  const path = join(folder, 'pipe');
  const { success } = Bun.spawnSync(['mkfifo', '-m', '600', path]);
  if (!success) throw new Error(`no named pipe could be made at ${path}`);
  // Open for both, since an open for writing alone would wait for the reader.
  const pipe = openSync(path, 'r+');
  // Behind a shell that is gone at once, for `bun test` ends all its children when a test takes too long. For the same
  // reason the pipe is not the child's own: Bun closes that when the child ends.
  const shell = Bun.spawn(
    ['sh', '-c', 'exec 3<"$2"; echo; "$0" "$1" <&3 &', process.execPath, import.meta.path, path],
    {
      cwd: '/',
      stdio: ['ignore', 'pipe', 'ignore'],
      detached: true,
    },
  );
  shell.unref();
  writeSync(pipe, `${JSON.stringify({ kind: 'folder', path: folder } satisfies Note)}\n`);
  // The shell prints a line when the pipe is open; the janitor prints nothing, so the output ends with it.
  const output = shell.stdout.getReader();
  const gone = async (): Promise<void> => {
    while (!(await output.read()).done);
  };
  return { pipe, opened: output.read(), gone };
}

async function clean(path: string): Promise<void> {
  await endLeftovers(path);
  await endLeftovers(join(path, 'postgres'));
  rmSync(path, { recursive: true, force: true, maxRetries: 10, retryDelay: 20 });
}

async function waitForEndOfTests(): Promise<void> {
  const pids = new Set<number>();
  const paths = new Set<string>();
  for await (const line of createInterface({ input: process.stdin })) {
    const note = JSON.parse(line) as Note;
    switch (note.kind) {
      case 'process':
        pids.add(note.pid);
        break;
      case 'ended':
        pids.delete(note.pid);
        break;
      case 'folder':
        paths.add(note.path);
        break;
      case 'removed':
        paths.delete(note.path);
    }
  }
  // Servers first: one that lives would start its database again.
  for (const pid of pids) kill(pid);
  await Promise.all([...paths].map(clean));
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (error) {
    if (systemErrorCode(error) !== 'ESRCH') throw error;
  }
}

if (import.meta.main) await waitForEndOfTests();
