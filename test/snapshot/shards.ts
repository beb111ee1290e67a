// Runs the long form of `property.test.ts` on the embedded database in shards, one after the other, each with a seed of
// its own and everything started anew:
//
//   bun test/snapshot/shards.ts --runs 10000 --shard 250 --seed 1 --minutes 60
//
// Prints a line for each shard. After `--minutes` the shard under way is ended, and what it has reached counts. A shard
// that fails leaves its output in a file, and the next ones run all the same. Exits with 1 if one failed.

import { parseArgs } from 'node:util';
import { join } from 'node:path';

const { values } = parseArgs({
  options: {
    runs: { type: 'string', default: '10000' },
    shard: { type: 'string', default: '250' },
    seed: { type: 'string', default: String(Date.now() % 1_000_000) },
    minutes: { type: 'string', default: '600' },
    output: { type: 'string', default: '.' },
  },
});
const [runs, shard, firstSeed] = [Number(values.runs), Number(values.shard), Number(values.seed)];
const deadline = performance.now() + Number(values.minutes) * 60_000;

interface Shard {
  readonly reached: number;
  readonly outcome: 'passed' | 'failed' | 'ended';
}

async function run(seed: number): Promise<Shard> {
  const child = Bun.spawn(
    [
      process.execPath,
      '--no-orphans',
      'test',
      'test/snapshot/property.test.ts',
      '--timeout=14400000',
      '-t',
      'postgres whenever',
    ],
    {
      cwd: join(import.meta.dir, '../..'),
      env: { ...process.env, LONG: '1', RUNS: String(shard), SEED: String(seed) },
      stdin: 'ignore',
      stdout: 'pipe',
      stderr: 'pipe',
    },
  );
  let isEnded = false;
  const timer = setTimeout(() => {
    isEnded = true;
    child.kill('SIGTERM');
  }, deadline - performance.now());
  const [stdout, stderr, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  clearTimeout(timer);
  const reached = Math.max(0, ...Array.from(stderr.matchAll(/^postgres: (\d+) of/gm), ([, count]) => Number(count)));
  const hasFailed = code !== 0 && !isEnded;
  if (hasFailed) await Bun.write(join(values.output, `snapshot-${seed}.log`), stdout + stderr);
  return { reached, outcome: hasFailed ? 'failed' : isEnded ? 'ended' : 'passed' };
}

let done = 0;
let failed = 0;
for (let seed = firstSeed; done < runs && performance.now() < deadline; seed++) {
  const begun = performance.now();
  const { reached, outcome } = await run(seed);
  done += reached;
  if (outcome === 'failed') failed++;
  const seconds = Math.round((performance.now() - begun) / 1_000);
  console.log(
    `seed ${seed}: ${outcome}, ${reached} of ${shard} runs in ${seconds} s; ${done} in all, ${failed} shards failed`,
  );
}
process.exit(failed === 0 ? 0 : 1);
