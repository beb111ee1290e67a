// `bun run test`: everything that the tests need on a bare machine, then the tests, with JUnit files beside the
// output. Arguments go to `bun test`; `--long` adds the tests that take minutes.
//
// Without arguments the files run in two passes. Half of their time is waiting, so the first pass runs several files at
// once. The second runs those that measure delays or memory, one at a time: a neighbour would be measured with them.
//
// The first pass begins with the files that take longest, as `test/timings.json` says, and those that it does not know; the
// shortest come last, so that no long one is left alone in the end. `--time` writes down what each took this time.

import { mkdtempSync, rmSync, statfsSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { installDependencies, installTestPackages } from './install.ts';
import { runToEnd } from './run-to-end.ts';

/** Files that measure: they run one at a time. */
const measuring: readonly string[] = [
  'test/guest/start-time.test.ts',
  'test/hostile/bodies.test.ts',
  'test/hostile/crowd.test.ts',
  'test/hostile/fuzz.test.ts',
  'test/hostile/greedy.test.ts',
  'test/hostile/open-files.test.ts',
  'test/hostile/reads.test.ts',
  'test/hostile/slow.test.ts',
  'test/fault/presence-size.test.ts',
  'test/wire/churn.test.ts',
  'test/wire/slow-readers.test.ts',
];

/** Databases, data folders and browsers of three files at a time take about a tenth. */
const roomInMemory = 8 * 2 ** 30;

const long = process.argv.includes('--long');
const timed = process.argv.includes('--time');
const given = process.argv.slice(2).filter((arg) => arg !== '--long' && arg !== '--time');
/** Milliseconds of each file. */
const timings = 'test/timings.json';

/** Resolves with the exit code. */
function runTests(results: string, args: readonly string[]): Promise<number> {
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
  return runToEnd(command, { env: long ? { ...environment, LONG: '1' } : environment });
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

/** Files of the first pass that run at once. With three on two cores these are busy, and no test waits for its turn. */
function atOnce(): number {
  return Math.ceil(1.5 * Math.min(2, availableParallelism()));
}

await installDependencies();
await installTestPackages(long);

const inMemory = process.env['TMPDIR'] === undefined ? folderInMemory() : undefined;
const environment: NodeJS.ProcessEnv = { ...process.env, ...(inMemory !== undefined && { TMPDIR: inMemory }) };
if (given.length > 0) process.exit(await runTests('test-results.xml', given));

const folder = mkdtempSync(join(inMemory ?? tmpdir(), 'sobranie-test-image-'));
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));
const image = join(folder, 'postgres');
const made = await runToEnd([process.execPath, 'test/support/postgres-image.ts', image], { env: environment });
if (made !== 0) process.exit(made);
environment['SOBRANIE_TEST_IMAGE'] = image;
const ignored = measuring.map((path) => `--path-ignore-patterns=${path}`);
const order = [`--timings=${timings}`, ...(timed ? ['--update-timings'] : [])];
const first = await runTests('test-results.xml', [`--parallel=${atOnce()}`, ...order, ...ignored]);
// A signal ends the command, not a pass.
if (first > 128) process.exit(first);
const second = await runTests('test-results-measuring.xml', [...measuring]);
process.exit(first === 0 ? second : first);
