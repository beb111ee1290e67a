// `bun run soak [redis] [postgres] [--minutes N]`: three nodes under steady load, with a fault every minute, and books in
// which each message is found once, in order, or under a gap that its reader was told. Prints a table; exit 1 unless every
// message is accounted for and the memory of a node that lived through all of it did not climb.

import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { cleanUp } from '../support/janitor.ts';
import { Load } from '../support/load.ts';
import { becomesReady } from '../support/nodes.ts';
import { seed } from '../support/random.ts';
import { wait } from '../support/tcp-client.ts';
import { printTable } from '../../bench/table.ts';
import { grown, slopePerTenMinutes } from './slope.ts';
import { layers, openStage, type Layer, type Stage } from './stage.ts';

/** Of the heap, in megabytes per ten minutes. */
const slopeMax = 1;
const recoveryMs = 180_000;
const minuteMs = 60_000;
/** Of each channel, by each reader, until what was broken counts as mended: rows alone may stand still as well. */
const arriveCount = 5;
const grownShown = 12;

interface Suffered {
  readonly minute: number;
  readonly fault: string;
  /** From its beginning until all nodes were ready and every reader received again. */
  readonly seconds: number;
}

interface Result {
  readonly layer: Layer;
  readonly minutes: number;
  readonly accepted: number;
  readonly received: number;
  readonly readers: number;
  readonly moves: number;
  readonly gaps: number;
  readonly unaccounted: number;
  readonly slope: number;
  /** Seconds at most in which this process did nothing else. What the nodes send goes through its proxies. */
  readonly standstill: number;
  /** The types of which most objects came to be. */
  readonly grown: readonly string[];
  readonly suffered: readonly Suffered[];
  readonly faults: readonly string[];
}

/** Answers the longest time, in seconds, that nothing else in this process got its turn. */
function watchStandstill(): () => number {
  const everyMs = 100;
  let before = performance.now();
  let longest = 0;
  const timer = setInterval(() => {
    const now = performance.now();
    longest = Math.max(longest, now - before - everyMs);
    before = now;
  }, everyMs);
  return () => {
    clearInterval(timer);
    return longest / 1_000;
  };
}

function keptFolder(): string {
  return mkdtempSync(join(tmpdir(), 'sobranie-soak-'));
}

async function soak(layer: Layer, minutes: number): Promise<Result> {
  const stage = await openStage(layer);
  const load = new Load({
    seed,
    nodes: () => stage.nodes(),
    channels: ['soak:a', 'soak:b'],
    databaseUrl: stage.databaseUrl,
    pauseMs: 60,
    sdkReaders: 2,
    // A node that is paused answers nobody.
    answerTimeoutMs: 60_000,
  });
  const faults: string[] = [];
  const suffered: Suffered[] = [];
  const restless = setInterval(() => load.moveSome(), 4_000);
  const standstill = watchStandstill();
  const note = (error: unknown): void => void faults.push(String(error));
  try {
    await load.start();
    await runMinutes(stage, load, minutes, suffered);
  } catch (error) {
    note(error);
  }
  clearInterval(restless);
  // Also after a fault: what is on its way when the traffic stops is not lost.
  await load.finish({ timeoutMs: 180_000, gaps: 'allowed' }).catch(note);
  const longest = standstill();
  const samples = stage.heap();
  const { account, moves } = load;
  const unaccounted = account.missingCount() + account.wrong().length;
  faults.push(...account.wrong().slice(0, 10), ...account.missing().slice(0, 10));
  const lost = account.missingIds().slice(0, 20);
  if (lost.length > 0) faults.push(...(await stage.autopsy(lost).catch((error: unknown) => [String(error)])));
  await load.end().catch((error: unknown) => faults.push(String(error)));
  const outputs = await stage.close();
  if (faults.length > 0) {
    const folder = keptFolder();
    outputs.forEach((printed, index) => writeFileSync(join(folder, `node-${index + 1}.log`), printed));
    faults.push(`what the nodes printed is in ${folder}`);
  }
  for (const printed of outputs) {
    const fault = /^.*(?:was not handled|was not caught|failed unexpectedly|"level":"fatal").*$/m.exec(printed);
    if (fault !== null) faults.push(fault[0]);
  }
  return {
    layer,
    minutes,
    accepted: account.accepted,
    received: account.ledgers.reduce((sum, { count }) => sum + count, 0),
    readers: account.ledgers.length,
    moves,
    gaps: account.gaps.length,
    unaccounted,
    slope: slopePerTenMinutes(samples),
    standstill: longest,
    grown: grown(samples, grownShown),
    suffered,
    faults,
  };
}

async function runMinutes(stage: Stage, load: Load, minutes: number, suffered: Suffered[]): Promise<void> {
  const startedAt = performance.now();
  for (let minute = 0; minute < minutes; minute++) {
    const endsAt = startedAt + Math.min(minute + 1, minutes) * minuteMs;
    // A share of a minute has its fault as well.
    await Bun.sleep(minuteMs * Math.min(1, minutes) * 0.3);
    const fault = stage.faults[minute % stage.faults.length]!;
    const brokeAt = performance.now();
    await wait(fault.happen(), recoveryMs, fault.name);
    await Promise.all(stage.nodes().map((node) => becomesReady(node, recoveryMs)));
    await load.arrivesInAll(arriveCount, recoveryMs);
    const seconds = (performance.now() - brokeAt) / 1_000;
    suffered.push({ minute: minute + 1, fault: fault.name, seconds });
    console.log(
      `minute ${minute + 1}: ${fault.name}; all flowed again after ${seconds.toFixed(1)} s; ` +
        `${load.account.accepted} accepted, ${load.account.gaps.length} gaps`,
    );
    await Bun.sleep(Math.max(0, endsAt - performance.now()));
  }
}

function report(result: Result): void {
  const { layer, minutes, suffered, faults } = result;
  printTable(
    `Soak over ${layer}, ${minutes} minutes`,
    ['', layer],
    [
      ['messages accepted', result.accepted],
      [`deliveries to ${result.readers} readers`, result.received],
      ['connections that were moved or lost', result.moves],
      ['faults', suffered.length],
      ['slowest recovery, s', Math.max(...suffered.map(({ seconds }) => seconds)).toFixed(1)],
      ['gaps told', result.gaps],
      ['unaccounted', result.unaccounted],
      ['heap, MB per 10 minutes', result.slope.toFixed(2)],
      ['longest standstill of the soak itself, s', result.standstill.toFixed(1)],
    ],
  );
  if (result.slope >= slopeMax) console.log(`more objects than before: ${result.grown.join(', ')}`);
  for (const fault of faults) console.log(`FAULT: ${fault}`);
}

function passes({ unaccounted, slope, faults, minutes }: Result): boolean {
  // A slope of a few minutes says how warm the node is.
  return unaccounted === 0 && faults.length === 0 && (minutes < 10 || slope < slopeMax);
}

const args = process.argv.slice(2);
const at = args.indexOf('--minutes');
const minutes = at === -1 ? 20 : Number(args.splice(at, 2)[1]);
const chosen = args.length === 0 ? layers : layers.filter((layer) => args.includes(layer));
if (!(minutes > 0) || args.some((arg) => !layers.some((layer) => layer === arg))) {
  console.error(`usage: bun run soak [${layers.join('] [')}] [--minutes 20]`);
  process.exit(2);
}
console.log(`SEED=${seed}`);
const results: Result[] = [];
for (const layer of chosen) {
  const result = await soak(layer, minutes);
  report(result);
  results.push(result);
}
await cleanUp();
process.exit(results.every(passes) ? 0 : 1);
