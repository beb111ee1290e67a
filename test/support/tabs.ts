// A browser as people have it: one window, of which one tab is shown and the others are hidden, with the slow timers that
// hidden tabs have. The browser of `browser.ts` tells each of its pages that it is seen, and such a page cannot be frozen.

import { chromium, type BrowserContext, type Page } from 'playwright-core';
import { endAfterTests, temporaryFolder } from './janitor.ts';

const executablePath = process.env['CHROMIUM_PATH'] ?? '/usr/bin/chromium';
const args = ['--headless=new', '--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking'];

export interface Tabs {
  readonly context: BrowserContext;
  /** Shows another tab in its place. */
  hide(page: Page): Promise<void>;
  show(page: Page): Promise<void>;
  /** Hides and freezes it: nothing in it runs until it is thawed. */
  freeze(page: Page): Promise<void>;
  /** It runs again, and is shown. */
  thaw(page: Page): Promise<void>;
  close(): Promise<void>;
}

export async function launchTabs(): Promise<Tabs> {
  const folder = temporaryFolder('browser');
  const child = Bun.spawn(
    [executablePath, ...args, '--remote-debugging-port=0', `--user-data-dir=${folder}`, 'about:blank'],
    { stdin: 'ignore', stdout: 'ignore', stderr: 'pipe' },
  );
  endAfterTests(child);
  // `noDefaults` is what keeps pages from being told that they are seen; the types do not know it. Three browsers that
  // start on a loaded machine need more than the 30 s that are waited unless told otherwise.
  const options = { noDefaults: true, timeout: 120_000 } as object;
  const browser = await chromium.connectOverCDP(await addressOf(child.stderr), options);
  const [context] = browser.contexts();
  if (context === undefined) throw new Error('the browser has no window');
  const [blank = await context.newPage()] = context.pages();
  const setState = async (page: Page, state: 'frozen' | 'active'): Promise<void> => {
    const devtools = await context.newCDPSession(page);
    await devtools.send('Page.setWebLifecycleState', { state });
    await devtools.detach();
  };
  const hide = (): Promise<void> => blank.bringToFront();
  return {
    context,
    hide,
    show: (page) => page.bringToFront(),
    async freeze(page) {
      await hide();
      await setState(page, 'frozen');
    },
    async thaw(page) {
      await setState(page, 'active');
      await page.bringToFront();
    },
    async close() {
      await browser.close();
      child.kill('SIGKILL');
      await child.exited;
    },
  };
}

/** The browser prints where it is to be spoken to. */
async function addressOf(output: ReadableStream<Uint8Array<ArrayBuffer>>): Promise<string> {
  const reader = output.pipeThrough(new TextDecoderStream()).getReader();
  let text = '';
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new Error(`the browser has ended:\n${text}`);
    text += value;
    const address = /listening on (ws:\/\/\S+)/.exec(text)?.[1];
    if (address === undefined) continue;
    // What else it prints is read, so that it does not wait for room.
    void (async () => {
      while (!(await reader.read()).done);
    })();
    return address;
  }
}
