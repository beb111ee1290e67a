// `bun run test`: everything that the tests need on a bare machine, then the tests, with a JUnit file beside the
// output. Arguments go to `bun test`; `--long` adds the tests that take minutes.

import { installDependencies, installTestPackages } from './install.ts';
import { runToEnd } from './run-to-end.ts';

const long = process.argv.includes('--long');
const args = process.argv.slice(2).filter((arg) => arg !== '--long');

await installDependencies();
await installTestPackages();

const command = [
  process.execPath,
  '--no-orphans',
  'test',
  // A slow machine is no failure; a test that hangs is found all the same.
  `--timeout=${long ? 600_000 : 60_000}`,
  '--reporter=junit',
  '--reporter-outfile=test-results.xml',
  ...args,
];
process.exit(await runToEnd(command, { env: long ? { ...process.env, LONG: '1' } : process.env }));
