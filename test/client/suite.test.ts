// The client's one suite in the runtimes that it is for: this Bun, Node 20 with the package `ws`, Deno, and Chromium.

import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { join } from 'node:path';
import { denoProgram, withoutDeno } from '../../scripts/deno-program.ts';
import { launchBrowser, type TestBrowser } from '../support/browser.ts';
import { endAfterTests, temporaryFolder } from '../support/janitor.ts';
import { patient } from '../support/patience.ts';
import { cases } from './cases.ts';
import { startDirector, type RunningDirector } from './director.ts';
import { perform, type Outcome } from './stage.ts';

patient();

type Told = (outcome: Outcome) => void;

/** Of one runtime: a promise for each case, settled as it ends. */
class Performance {
  readonly #outcomes = new Map<string, PromiseWithResolvers<Outcome>>();

  constructor(run: (told: Told) => Promise<void>) {
    for (const title of titles) this.#outcomes.set(title, Promise.withResolvers());
    const fail = (reason: string): void => {
      for (const [title, { resolve }] of this.#outcomes) resolve({ title, failure: reason });
    };
    run((outcome) => this.#outcomes.get(outcome.title)?.resolve(outcome)).then(
      () => fail('the run ended without it'),
      (error: unknown) => fail(String(error)),
    );
  }

  async outcome(title: string): Promise<string | undefined> {
    return (await this.#outcomes.get(title)?.promise)?.failure;
  }
}

const titles = Object.keys(cases).flatMap((title) => [`${title}, websocket`, `${title}, sse`]);

async function bundle(entry: string, target: 'node' | 'browser', folder: string): Promise<string> {
  const { success, outputs, logs } = await Bun.build({
    entrypoints: [join(import.meta.dir, entry)],
    target,
    format: 'esm',
    outdir: folder,
    naming: '[name].mjs',
  });
  const [output] = outputs;
  if (!success || output === undefined) throw new Error(logs.map(String).join('\n'));
  return output.path;
}

async function inNode(director: string, told: Told): Promise<void> {
  const node = Bun.which('node');
  if (node === null) throw new Error('Node is missing: install the package "nodejs", version 20 or newer.');
  await inProgram([node, await bundle('run-in-node.ts', 'node', temporaryFolder('node')), director], {}, told);
}

async function inDeno(program: string, director: string, told: Told): Promise<void> {
  const folder = temporaryFolder('deno');
  const script = await bundle('run-in-deno.ts', 'browser', folder);
  const command = [program, 'run', '--quiet', '--no-config', '--allow-net=127.0.0.1', script, director];
  await inProgram(command, { DENO_DIR: folder, DENO_NO_UPDATE_CHECK: '1', NO_PROXY: '127.0.0.1' }, told);
}

async function inProgram(
  command: readonly string[],
  environment: Readonly<Record<string, string>>,
  told: Told,
): Promise<void> {
  const env = { ...process.env, ...environment };
  const child = Bun.spawn([...command], { env, stdin: 'ignore', stdout: 'pipe', stderr: 'inherit' });
  endAfterTests(child);
  let rest = '';
  for await (const chunk of child.stdout.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + chunk).split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) told(JSON.parse(line) as Outcome);
  }
  await child.exited;
}

async function inChromium(browser: TestBrowser, director: string, told: Told): Promise<void> {
  const path = await bundle('run-in-page.ts', 'browser', temporaryFolder('page'));
  const site = Bun.serve({
    hostname: '127.0.0.1',
    port: 0,
    fetch: async ({ url }) =>
      new URL(url).pathname === '/suite.mjs'
        ? new Response(Bun.file(path), { headers: { 'content-type': 'text/javascript' } })
        : new Response(
            '<!doctype html><link rel="icon" href="data:,"><script type="module" src="/suite.mjs"></script>',
            {
              headers: { 'content-type': 'text/html' },
            },
          ),
  });
  const { page } = await browser.newPage();
  await page.exposeFunction('told', told);
  const ended = Promise.withResolvers<void>();
  await page.exposeFunction('ended', ended.resolve);
  await page.goto(`${site.url.href}?${new URLSearchParams({ director }).toString()}`);
  await ended.promise;
  await page.close();
  await site.stop(true);
}

let director: RunningDirector;
let browser: TestBrowser;
const performances = new Map<string, Performance>();

beforeAll(async () => {
  [director, browser] = await Promise.all([startDirector(), launchBrowser()]);
  performances.set('Bun', new Performance((told) => perform(cases, director.url, 'bun', {}, told)));
  performances.set('Node', new Performance((told) => inNode(director.url, told)));
  if (deno !== undefined) {
    performances.set('Deno', new Performance((told) => inDeno(deno, director.url, told)));
  }
  performances.set('Chromium', new Performance((told) => inChromium(browser, director.url, told)));
}, 60_000);

afterAll(async () => {
  await browser.close();
  await director.close();
}, 60_000);

const deno = denoProgram();

describe.each(['Bun', 'Node', 'Deno', 'Chromium'])('in %s', (runtime) => {
  const isMissing = runtime === 'Deno' && deno === undefined;
  test.skipIf(isMissing).each(titles)(isMissing ? `%s${withoutDeno()}` : '%s', async (title) => {
    expect((await performances.get(runtime)?.outcome(title)) ?? '').toBe('');
  });
});
