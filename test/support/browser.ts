// A real browser for tests: Debian's Chromium, driven by playwright-core; where it is installed the one without windows,
// of which a launch and three pages take a quarter of the processor time. Responsible for one browser process per
// `launchBrowser` and for its end, also when the test process dies early; what a page does is the test's affair.

import axe from 'axe-core';
import { existsSync } from 'node:fs';
import { chromium, type Browser, type BrowserContext, type BrowserServer, type Page } from 'playwright-core';

const programs = ['/usr/lib/chromium/chromium-headless-shell', '/usr/bin/chromium'];
const executablePath = process.env['CHROMIUM_PATH'] ?? programs.find(existsSync) ?? '/usr/bin/chromium';
const launchTimeoutMs = 30_000;
const closeTimeoutMs = 5_000;

// No network of its own: the machine may be offline, and the tests check where every request goes.
const args = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

/** A page and everything it did that a test has to answer for. */
export interface WatchedPage {
  readonly page: Page;
  /** Errors of the console and exceptions of scripts, in the order they came. */
  readonly errors: readonly string[];
  /** URLs of all requests, including WebSockets. */
  readonly requests: readonly string[];
}

export interface TestBrowser {
  readonly pid: number;
  newPage(options?: {
    readonly width?: number;
    readonly height?: number;
    readonly dark?: boolean;
    /** The test's own scripts may connect from any page, also from one whose headers forbid it. */
    readonly bypassCSP?: boolean;
  }): Promise<WatchedPage>;
  /** Pages of one context are tabs of one visitor: they share cookies, storage and locks. */
  newContext(): Promise<BrowserContext>;
  /** Idempotent. Ends the process by force when it does not leave by itself. */
  close(): Promise<void>;
}

/** `more`: further arguments of the program. */
export async function launchBrowser(more: readonly string[] = []): Promise<TestBrowser> {
  if (!existsSync(executablePath)) {
    throw new Error(`No browser at ${executablePath}: install the package "chromium" or set CHROMIUM_PATH.`);
  }
  const server = await chromium.launchServer({
    executablePath,
    args: [...args, ...more],
    timeout: launchTimeoutMs,
    handleSIGINT: false,
    handleSIGTERM: false,
    handleSIGHUP: false,
  });
  const pid = server.process().pid;
  if (pid === undefined) throw new Error('The browser has no process.');
  // Chromium's helpers share its process group, which playwright makes for it.
  const killGroup = () => killQuietly(-pid);
  process.once('exit', killGroup);

  let closing: Promise<void> | undefined;
  const close = () => {
    closing ??= closeServer(server, killGroup).finally(() => process.off('exit', killGroup));
    return closing;
  };

  try {
    const browser = await chromium.connect(server.wsEndpoint(), { timeout: launchTimeoutMs });
    return { pid, close, newPage: (options = {}) => newPage(browser, options), newContext: () => browser.newContext() };
  } catch (error) {
    await close();
    throw error;
  }
}

/** What breaks the rules of accessibility on the page as it stands. */
export async function faultsOf(page: Page): Promise<readonly object[]> {
  await page.evaluate(axe.source);
  const { violations } = await page.evaluate<axe.AxeResults>(`axe.run({ resultTypes: ['violations'] })`);
  return violations.map(({ id, nodes }) => ({ id, at: nodes.map(({ html }) => html) }));
}

async function newPage(
  browser: Browser,
  {
    width = 1200,
    height = 900,
    dark = false,
    bypassCSP = false,
  }: { width?: number; height?: number; dark?: boolean; bypassCSP?: boolean },
): Promise<WatchedPage> {
  const page = await browser.newPage({
    bypassCSP,
    viewport: { width, height },
    colorScheme: dark ? 'dark' : 'light',
    reducedMotion: 'reduce',
  });
  const errors: string[] = [];
  const requests: string[] = [];
  page.on('console', (message) => {
    if (message.type() === 'error' || message.type() === 'warning') errors.push(message.text());
  });
  page.on('pageerror', (error) => errors.push(String(error)));
  page.on('request', (request) => requests.push(request.url()));
  page.on('websocket', (socket) => requests.push(socket.url()));
  return { page, errors, requests };
}

async function closeServer(server: BrowserServer, killGroup: () => void): Promise<void> {
  let timer: Timer | undefined;
  const late = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, closeTimeoutMs);
  });
  await Promise.race([server.close(), late]);
  clearTimeout(timer);
  killGroup();
}

function killQuietly(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (error) {
    // Already gone, which is what was wanted.
    if (!(error instanceof Error && 'code' in error && error.code === 'ESRCH')) throw error;
  }
}
