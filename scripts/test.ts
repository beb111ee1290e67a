// `bun run test`: everything that the tests need on a bare machine, then the tests, with JUnit files beside the
// output. Arguments go to `bun test`; `--long` adds the tests that take minutes.
//
// Without arguments what many files need is made once, in a folder that is removed with the end: a database cluster to copy,
// and the executable of this very checkout, of which tests start their servers.
//
// Then the files run in three passes. Half of their time is waiting, the longest ones' most of all, so the first pass runs
// several files at once. The second runs those that measure delays or memory, one at a time: a neighbour would be measured
// with them. The third runs what is written in SQL once more, on the oldest PostgreSQL that the server takes.
//
// The first pass begins with the files that take longest, as `test/timings.json` says, and those that it does not know; the
// shortest come last, so that no long one is left alone in the end. `--time` writes down what each took this time. The long
// form has times of its own.

import { chmodSync, mkdtempSync, rmSync, statfsSync, symlinkSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { findPostgresBinaries } from '../src/embedded/binaries.ts';
import { installDependencies, installTestPackages } from './install.ts';
import { runToEnd } from './run-to-end.ts';

const long = process.argv.includes('--long');

/** Files that measure: they run one at a time. */
const measuring: readonly string[] = [
  'test/guest/start-time.test.ts',
  'test/hostile/bodies.test.ts',
  'test/hostile/crowd.test.ts',
  'test/hostile/fuzz.test.ts',
  'test/hostile/greedy.test.ts',
  'test/hostile/reads.test.ts',
  // In its short form it mostly waits, and allows seconds where the long one allows 10 ms.
  ...(long ? ['test/hostile/slow.test.ts'] : []),
  'test/fault/presence-size.test.ts',
  'test/wire/churn.test.ts',
  'test/wire/slow-readers.test.ts',
];

/** Files that run on the oldest PostgreSQL too: what captures rows, numbers them and keeps them, and what is called by name. */
const onOldest: readonly string[] = [
  'test/database/log.test.ts',
  'test/database/numbering.test.ts',
  'test/database/order-cost.test.ts',
  'test/database/order.test.ts',
  'test/database/parked.test.ts',
  'test/database/relay.test.ts',
  'test/database/rights.test.ts',
  'test/database/send.test.ts',
  'test/database/watch.test.ts',
];

/** Databases, data folders and browsers of five files at a time take about an eighth. */
const roomInMemory = 8 * 2 ** 30;

const timed = process.argv.includes('--time');
const given = process.argv.slice(2).filter((arg) => arg !== '--long' && arg !== '--time');
/** Milliseconds of each file. */
const timings = long ? 'test/timings-long.json' : 'test/timings.json';

/** Resolves with the exit code. */
function runTests(results: string, args: readonly string[], more: NodeJS.ProcessEnv = {}): Promise<number> {
  const command = [
    process.execPath,
    '--no-orphans',
    'test',
    // A slow machine is no failure; a test that hangs is found all the same.
    `--timeout=${long ? 600_000 : 60_000}`,
    '--reporter=junit',
    `--reporter-outfile=${results}`,
    ...args,
  ];
  return runToEnd(command, { env: { ...environment, ...(long && { LONG: '1' }), ...more } });
}

/** Data of a test need no disk. Copying and deleting them was most of what the system did for the tests. */
function folderInMemory(): string | undefined {
  const path = '/dev/shm';
  try {
    const { bavail, bsize } = statfsSync(path);
    return bavail * bsize >= roomInMemory ? path : undefined;
  } catch {
    // A system without it.
    return undefined;
  }
}

/** Files that run at once. With four, two cores were idle for a tenth of the time. */
function atOnce(): number {
  return 2 * Math.min(2, availableParallelism()) + 1;
}

await installDependencies();
const installed = installTestPackages(long);

const inMemory = process.env['TMPDIR'] === undefined ? folderInMemory() : undefined;
const environment: NodeJS.ProcessEnv = { ...process.env, ...(inMemory !== undefined && { TMPDIR: inMemory }) };
if (given.length > 0) {
  await installed;
  process.exit(await runTests('test-results.xml', given));
}

const folder = mkdtempSync(join(inMemory ?? tmpdir(), 'sobranie-test-image-'));
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));
// The embedded PostgreSQL of a server runs as another user than root.
chmodSync(folder, 0o755);
const image = join(folder, 'image');
const made = await Promise.all([
  runToEnd([process.execPath, 'test/support/postgres-image.ts', image], { env: environment }),
  runToEnd([process.execPath, 'scripts/build.ts', `--outdir=${folder}`], { env: environment }),
]);
await installed;
const failed = made.find((code) => code !== 0);
if (failed !== undefined) process.exit(failed);
// As `--postgres` lays it, without a copy.
symlinkSync(dirname(dirname(findPostgresBinaries().bin)), join(folder, 'postgres'));
environment['SOBRANIE_TEST_IMAGE'] = image;
environment['SOBRANIE_TEST_SERVER'] = join(folder, 'sobranie');
const ignored = measuring.map((path) => `--path-ignore-patterns=${path}`);
const order = [`--timings=${timings}`, ...(timed ? ['--update-timings'] : [])];
const first = await runTests('test-results.xml', [`--parallel=${atOnce()}`, ...order, ...ignored]);
// A signal ends the command, not a pass.
if (first > 128) process.exit(first);
const second = await runTests('test-results-measuring.xml', [...measuring]);
if (second > 128) process.exit(second);
const third = await runTests('test-results-oldest.xml', [`--parallel=${atOnce()}`, ...onOldest], {
  SOBRANIE_TEST_PG_BIN: findPostgresBinaries('postgres-13').bin,
  SOBRANIE_TEST_IMAGE: undefined,
});
process.exit([first, second, third].find((code) => code !== 0) ?? 0);
