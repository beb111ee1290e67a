// The client under everything that networks, servers and machines do, for a minute, or for 20 minutes with LONG=1: each
// message of each channel comes once and in order or a gap is told, and a live table is the table at the end.
//
// In the short form: this Bun over memory, Node over PostgreSQL, Chromium over Redis. In the long form each over each.

import { afterAll, expect, test } from 'bun:test';
import { join } from 'node:path';
import type { Page } from 'playwright-core';
import { endAfterTests, temporaryFolder } from '../support/janitor.ts';
import { randomFrom, seed } from '../support/random.ts';
import { launchTabs, type Tabs } from '../support/tabs.ts';
import { within } from '../../src/time/within.ts';
import { suffer, type Report } from './torture-client.ts';
import { Tormentor, type Engine } from './tormentor.ts';

const isLong = process.env['LONG'] === '1';
const tormentMs = Number(process.env['TORMENT_MS'] ?? (isLong ? 20 * 60_000 : 60_000));
const limitMs = tormentMs + 300_000;

const runtimes = ['Bun', 'Node', 'Chromium'] as const;
type Runtime = (typeof runtimes)[number];
const short: readonly (readonly [Runtime, Engine])[] = [
  ['Bun', 'memory'],
  ['Node', 'postgres'],
  ['Chromium', 'redis'],
];
const all = runtimes.flatMap((runtime) =>
  (['memory', 'postgres', 'redis'] as const).map((engine) => [runtime, engine] as const),
);
const pairs = isLong ? all : short;

const running: Tormentor[] = [];
afterAll(async () => {
  await Promise.all(running.map((tormentor) => tormentor.close()));
}, 60_000);

test(
  `nothing is lost or doubled in silence, seed ${seed}`,
  async () => {
    const engines = [...new Set(pairs.map(([, engine]) => engine))];
    const tormentors = new Map<string, Tormentor>();
    await Promise.all(
      engines.map(async (engine, index) => {
        const tormentor = await Tormentor.start(engine, seed + index);
        running.push(tormentor);
        tormentors.set(engine, tormentor);
      }),
    );
    // A browser takes a while to start: the torment begins when the victim is there.
    const arrived = new Map(engines.map((engine) => [engine as string, Promise.withResolvers<void>()]));
    const desk = Bun.serve({
      hostname: '127.0.0.1',
      port: 0,
      idleTimeout: 0,
      async fetch(request) {
        const order = (await request.json()) as { call: string; engine: string };
        arrived.get(order.engine)?.resolve();
        const headers = { 'access-control-allow-origin': '*' };
        return Response.json(await tormentors.get(order.engine)?.answer(order), { headers });
      },
    });
    const waitsFor = new Set<string>();
    const victims = pairs.map(async ([runtime, engine]) => {
      waitsFor.add(`the victims in ${runtime} over ${engine}`);
      const reports = await victim(runtime, desk.url.href, engine);
      waitsFor.delete(`the victims in ${runtime} over ${engine}`);
      return reports.map((report, index) => ({
        name: `${runtime} ${engine} ${index === 0 ? 'websocket' : 'sse'}`,
        report,
      }));
    });
    const torment = Array.from(tormentors, async ([engine, tormentor]) => {
      waitsFor.add(`the torment over ${engine}`);
      await arrived.get(engine)?.promise;
      await tormentor.torment(tormentMs);
      waitsFor.delete(`the torment over ${engine}`);
    });
    const isOver = Promise.all([Promise.all(victims), ...torment]);
    const [ended] = await within(isOver, limitMs - 30_000, 'all').catch((cause: unknown) => {
      throw new Error(`waits for ${[...waitsFor].join(', ')}`, { cause });
    });
    const results = ended.flat();
    await desk.stop(true);
    const harms = [...tormentors.values()].map(({ engine, done }) => `${engine}: ${done.join(' ')}`).join('\n');
    for (const { name, report } of results) {
      const { faults, trace } = report;
      expect({ name, faults, trace, harms }).toEqual({ name, faults: [], trace: [], harms });
      // It did see something.
      expect(report.messages).toBeGreaterThan(20);
      expect(report.connections).toBeGreaterThan(1);
    }
    if (process.env['VERBOSE'] === '1') process.stderr.write(`${harms}\n${JSON.stringify(results, null, 1)}\n`);
  },
  limitMs,
);

async function victim(runtime: Runtime, tormentor: string, engine: Engine): Promise<readonly Report[]> {
  if (runtime === 'Node') return inNode(tormentor, engine);
  if (runtime === 'Chromium') return inChromium(tormentor, engine);
  // Its clock is set now and then.
  let offsetMs = 0;
  const random = randomFrom(seed);
  const jumps = setInterval(() => (offsetMs += (random() - 0.5) * 3_600_000), 7_000);
  const platform = { wallClock: () => Date.now() + offsetMs };
  try {
    return await Promise.all([
      suffer(tormentor, engine, 'websocket', platform),
      suffer(tormentor, engine, 'sse', platform),
    ]);
  } finally {
    clearInterval(jumps);
  }
}

async function bundle(entry: string, target: 'node' | 'browser'): Promise<string> {
  const { outputs, logs } = await Bun.build({
    entrypoints: [join(import.meta.dir, entry)],
    target,
    outdir: temporaryFolder('torture'),
    naming: '[name].mjs',
  });
  const [output] = outputs;
  if (output === undefined) throw new Error(logs.map(String).join('\n'));
  return output.path;
}

async function inNode(tormentor: string, engine: Engine): Promise<readonly Report[]> {
  const path = await bundle('torture-in-node.ts', 'node');
  const child = Bun.spawn(['node', path, tormentor, engine], { stdin: 'ignore', stdout: 'pipe', stderr: 'inherit' });
  endAfterTests(child);
  return JSON.parse(await child.stdout.text()) as Report[];
}

async function inChromium(tormentor: string, engine: Engine): Promise<readonly Report[]> {
  const path = await bundle('torture-in-page.ts', 'browser');
  const site = Bun.serve({
    hostname: '127.0.0.1',
    port: 0,
    fetch: ({ url }) =>
      new URL(url).pathname === '/torture.mjs'
        ? new Response(Bun.file(path), { headers: { 'content-type': 'text/javascript' } })
        : new Response('<!doctype html><script type="module" src="/torture.mjs"></script>', {
            headers: { 'content-type': 'text/html' },
          }),
  });
  const tabs = await launchTabs();
  try {
    const page = await tabs.context.newPage();
    const { promise, resolve } = Promise.withResolvers<readonly Report[]>();
    await page.exposeFunction('told', resolve);
    await page.goto(`${site.url.href}?${new URLSearchParams({ tormentor, engine }).toString()}`);
    const [reports] = await Promise.all([promise, disturb(tabs, page, promise)]);
    return reports;
  } finally {
    await tabs.close();
    await site.stop(true);
  }
}

/** Freezes, thaws and hides the page, and takes its network away and back, until it has told its reports. */
async function disturb(tabs: Tabs, page: Page, told: Promise<unknown>): Promise<void> {
  const random = randomFrom(seed);
  let isOver = false;
  void told.then(() => (isOver = true));
  const until = performance.now() + tormentMs;
  const isTime = (): boolean => !isOver && performance.now() < until;
  while (isTime()) {
    await Bun.sleep(1_000 + random() * 4_000);
    const kind = random();
    if (kind < 0.4) {
      await tabs.freeze(page);
      await Bun.sleep(random() * 6_000);
      await tabs.thaw(page);
    } else if (kind < 0.6) {
      await tabs.hide(page);
      await Bun.sleep(random() * 6_000);
      await tabs.show(page);
    } else {
      await page.context().setOffline(true);
      await Bun.sleep(random() * 3_000);
      await page.context().setOffline(false);
    }
  }
}
