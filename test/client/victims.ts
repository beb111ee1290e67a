// Where the victims of the torture run: Bun and Node as programs of their own, Chromium as a page. Programs are stopped
// and continued, as a machine that sleeps does; pages are frozen, hidden and taken offline. Wall clocks are set.

import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { endAfterTests, temporaryFolder } from '../support/janitor.ts';
import { randomFrom } from '../support/random.ts';
import { launchTabs } from '../support/tabs.ts';
import type { Report } from './torture-client.ts';

export const runtimes = ['Bun', 'Node', 'Chromium'] as const;
export type Runtime = (typeof runtimes)[number];

export interface Torture {
  /** Where the victims ask what to do. */
  readonly desk: string;
  readonly engine: string;
  readonly seed: number;
  readonly tormentMs: number;
  /** Aborted when the torture ends early: the victims end then, and reject. */
  readonly signal: AbortSignal;
}

/** Something that is done to a victim for a while. */
interface Trouble {
  readonly weight: number;
  readonly msMax: number;
  begin(): unknown;
  end(): unknown;
}

/** The reports of the runtime's two victims: over WebSocket and over an event stream. */
export function suffering(runtime: Runtime, torture: Torture): Promise<readonly Report[]> {
  return runtime === 'Chromium' ? inChromium(torture) : inProgram(runtime, torture);
}

async function inProgram(runtime: 'Bun' | 'Node', torture: Torture): Promise<readonly Report[]> {
  const path = await bundle('torture-in-program.ts', 'node');
  // Whoever listens to a signal that was aborted before hears nothing.
  torture.signal.throwIfAborted();
  const program = runtime === 'Bun' ? process.execPath : 'node';
  const command = [program, path, torture.desk, torture.engine, String(torture.seed)];
  const child = Bun.spawn(command, { stdin: 'ignore', stdout: 'pipe', stderr: 'pipe' });
  endAfterTests(child);
  const kill = (): void => child.kill('SIGKILL');
  torture.signal.addEventListener('abort', kill, { once: true });
  const read = async (): Promise<readonly Report[]> => {
    const [printed, faults] = await Promise.all([child.stdout.text(), child.stderr.text()]);
    if ((await child.exited) !== 0) throw new Error(`${runtime} ended (${child.exitCode}): ${faults.slice(-1_000)}`);
    return JSON.parse(printed) as Report[];
  };
  try {
    return await troubled(read(), torture, [
      // Past two heartbeats the server has given it up.
      {
        weight: 1,
        msMax: Math.min(20_000, torture.tormentMs / 6),
        begin: () => child.kill('SIGSTOP'),
        end: () => child.kill('SIGCONT'),
      },
      { weight: 6, msMax: 6_000, begin: () => child.kill('SIGSTOP'), end: () => child.kill('SIGCONT') },
    ]);
  } finally {
    torture.signal.removeEventListener('abort', kill);
    kill();
  }
}

async function inChromium(torture: Torture): Promise<readonly Report[]> {
  const { desk: tormentor, engine, seed, signal } = torture;
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
  const { promise, resolve, reject } = Promise.withResolvers<readonly Report[]>();
  if (signal.aborted) reject(signal.reason as Error);
  const giveUp = (): void => reject(signal.reason as Error);
  signal.addEventListener('abort', giveUp, { once: true });
  try {
    const query = new URLSearchParams({ tormentor, engine, seed: String(seed) });
    const suffer = async (): Promise<unknown> => {
      const page = await tabs.context.newPage();
      page.on('pageerror', reject);
      await page.exposeFunction('told', resolve);
      await page.goto(`${site.url.href}?${query.toString()}`);
      return troubled(promise, torture, [
        { weight: 4, msMax: 6_000, begin: () => tabs.freeze(page), end: () => tabs.thaw(page) },
        { weight: 2, msMax: 6_000, begin: () => tabs.hide(page), end: () => tabs.show(page) },
        {
          weight: 4,
          msMax: 3_000,
          begin: () => page.context().setOffline(true),
          end: () => page.context().setOffline(false),
        },
      ]);
    };
    const [reports] = await Promise.all([promise, suffer()]);
    return reports;
  } finally {
    signal.removeEventListener('abort', giveUp);
    await tabs.close();
    await site.stop(true);
  }
}

/** What the victims report, who meanwhile have one trouble after the other. */
async function troubled<Result>(
  reports: Promise<Result>,
  { seed, tormentMs, signal }: Torture,
  troubles: readonly Trouble[],
): Promise<Result> {
  const random = randomFrom(seed);
  const over = new AbortController();
  const anyEnd = AbortSignal.any([signal, over.signal]);
  const make = async (): Promise<void> => {
    const until = performance.now() + tormentMs;
    while (performance.now() < until) {
      await pause(1_000 + random() * 4_000, undefined, { signal: anyEnd });
      const trouble = weighted(troubles, random());
      await trouble.begin();
      try {
        await pause(random() * trouble.msMax, undefined, { signal: anyEnd });
      } finally {
        await trouble.end();
      }
    }
  };
  const making = make().catch((error: unknown) => {
    if (!anyEnd.aborted) throw error;
  });
  try {
    return await Promise.race([reports, making.then(() => reports)]);
  } finally {
    over.abort();
    await making;
  }
}

function weighted(troubles: readonly Trouble[], chance: number): Trouble {
  let rest = chance * troubles.reduce((sum, { weight }) => sum + weight, 0);
  for (const trouble of troubles) {
    rest -= trouble.weight;
    if (rest < 0) return trouble;
  }
  throw new Error('there is no trouble to choose from');
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
