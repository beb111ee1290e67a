// Tabs that share one connection, in a real browser: one WebSocket for all, each tab with its channels; the tab that has it
// is closed, or crashes, and the others go on with nothing lost.

import { afterAll, beforeAll, expect, test } from 'bun:test';
import { join } from 'node:path';
import type { BrowserContext, Page } from 'playwright-core';
import { launchBrowser, type TestBrowser } from '../support/browser.ts';
import { patient } from '../support/patience.ts';
import { startServer, type RunningServer } from '../support/process.ts';
import { startProxy, type Proxy } from '../support/proxy.ts';
import { until } from '../support/tcp-client.ts';
import { post } from '../wire/wire.ts';

patient();

let browser: TestBrowser;
let server: RunningServer;
let proxy: Proxy;
let site: Bun.Server<undefined>;

/** What a tab does; `heard` and `api` are for the test. */
const script = (url: string): string => `
  import { Sobranie } from '/client.mjs';
  const client = new Sobranie('${url}', { ...(location.hash === '#alone' ? { persist: true } : { share: true }), backoffMs: [200] });
  window.heard = {};
  window.standing = () => client.status;
  window.reconnect = () => client.reconnect();
  window.follow = (name) => {
    const heard = (window.heard[name] = []);
    const note = (event) => heard.push(event.type === 'gap' ? 'gap' : event.data);
    client.channel(name).subscribe(note, { onGap: note });
  };
  window.live = (name) => client.channel(name).state === 'live';
  window.publish = (name, data) => client.channel(name).publish(data);
  window.past = (name) => client.channel(name).history().then(({ messages }) => messages.map(({ data }) => data));
`;

beforeAll(async () => {
  const settings = {
    SYNC: 'memory',
    ALLOWED_ORIGINS: '*',
    HEARTBEAT: '8',
    SHUTDOWN_TIMEOUT: '0',
    BROADCAST_INTERVAL: '0',
  };
  [server, browser] = await Promise.all([startServer(settings), launchBrowser()]);
  proxy = await startProxy({ port: server.port });
  const { outputs } = await Bun.build({
    entrypoints: [join(import.meta.dir, '../../packages/client/src/index.ts')],
    target: 'browser',
  });
  const client = (await outputs[0]?.text()) ?? '';
  const javascript = { headers: { 'content-type': 'text/javascript', 'access-control-allow-origin': '*' } };
  site = Bun.serve({
    hostname: '127.0.0.1',
    port: 0,
    routes: {
      '/client.mjs': () => new Response(client, javascript),
      '/tab.mjs': () => new Response(script(`http://127.0.0.1:${proxy.port}`), javascript),
      '/framed': () =>
        new Response(
          '<!doctype html><link rel="icon" href="data:,"><iframe sandbox="allow-scripts" src="/"></iframe>',
          {
            headers: { 'content-type': 'text/html' },
          },
        ),
      '/': () =>
        new Response('<!doctype html><link rel="icon" href="data:,"><script type="module" src="/tab.mjs"></script>', {
          headers: { 'content-type': 'text/html' },
        }),
    },
  });
}, 60_000);

afterAll(async () => {
  await browser.close();
  await Promise.all([site.stop(true), proxy.close(), server.stop()]);
}, 60_000);

async function openTab(context: BrowserContext, ...channels: string[]): Promise<Page> {
  const page = await context.newPage();
  await page.goto(site.url.href);
  await page.waitForFunction('window.publish !== undefined');
  for (const name of channels) await page.evaluate(`follow('${name}')`);
  for (const name of channels) await page.waitForFunction(`live('${name}')`);
  return page;
}

const heard = (page: Page, name: string): Promise<unknown[]> => page.evaluate(`heard['${name}']`);
const publish = async (channel: string, data: unknown): Promise<void> => {
  expect((await post(server, '/realtime/publish', { channel, data })).status).toBe(200);
};
async function hears(page: Page, name: string, expected: unknown[]): Promise<void> {
  let last = '';
  const isSo = async (): Promise<boolean> =>
    (last = JSON.stringify(await heard(page, name))) === JSON.stringify(expected);
  await until(isSo, () => `a tab hears ${JSON.stringify(expected)} of ${name}, not ${last}`, 30_000, 50);
}

test('three tabs, one connection, and each hears its own', async () => {
  const context = await browser.newContext();
  const one = await openTab(context, 'a', 'both');
  const two = await openTab(context, 'b', 'both');
  const three = await openTab(context, 'both');
  expect(proxy.open).toBe(1);
  await publish('a', 1);
  await publish('b', 2);
  await two.evaluate(`publish('both', 'by two')`);
  await hears(one, 'a', [1]);
  await hears(two, 'b', [2]);
  for (const tab of [one, two, three]) await hears(tab, 'both', ['by two']);
  expect(await three.evaluate(`past('both')`)).toEqual(['by two']);
  expect(await three.evaluate('standing().transport')).toBe('websocket');

  // The network goes and comes: every tab goes on, and none is told of a gap.
  proxy.mode = 'refuse';
  proxy.cut();
  await publish('both', 'meanwhile');
  await three.waitForFunction(`standing().state !== 'connected'`);
  proxy.mode = 'forward';
  for (const tab of [one, two, three]) await hears(tab, 'both', ['by two', 'meanwhile']);
  await three.waitForFunction(`standing().state === 'connected'`);

  // The tab that leads is closed: another one leads, and nothing is lost.
  await one.close();
  await publish('both', 'after');
  await publish('b', 3);
  for (const tab of [two, three]) await hears(tab, 'both', ['by two', 'meanwhile', 'after']);
  await hears(two, 'b', [2, 3]);
  await until(() => proxy.open === 1, 'one connection is left');

  // A tab that comes late hears from now on.
  const four = await openTab(context, 'both');
  await publish('both', 'late');
  await hears(four, 'both', ['late']);
  await hears(three, 'both', ['by two', 'meanwhile', 'after', 'late']);
  expect(proxy.open).toBe(1);

  // The leader crashes.
  await two.goto('chrome://crash').catch(() => undefined);
  await publish('both', 'crash');
  await hears(three, 'both', ['by two', 'meanwhile', 'after', 'late', 'crash']);
  await hears(four, 'both', ['late', 'crash']);
  await context.close();
  await until(() => proxy.open === 0, 'no connection is left');
});

// The tab that led kept its connection, and with it the user who had logged out in another tab.
test('a login in one tab is one for all: they leave the connection that they share', async () => {
  const context = await browser.newContext();
  const [one, two] = [await openTab(context, 'both'), await openTab(context, 'both')];
  const before = await one.evaluate('standing().connection');
  await two.evaluate('reconnect()');
  for (const tab of [one, two]) {
    const isOther = `standing().state === 'connected' && standing().connection !== ${JSON.stringify(before)} && live('both')`;
    await tab.waitForFunction(isOther);
  }
  await publish('both', 'after the login');
  for (const tab of [one, two])
    await until(async () => (await heard(tab, 'both')).includes('after the login'), 'it is heard');
  expect(proxy.open).toBe(1);
  await context.close();
  await until(() => proxy.open === 0, 'no connection is left');
});

// A frame with an origin of its own is refused every lock. The client asked for the lock again at once, without an end, and
// the page stood still.
test('a sandboxed frame, in which tabs cannot find each other, has a connection of its own', async () => {
  const { page, errors } = await browser.newPage();
  await page.goto(`${site.url.href}framed`);
  const element = await page.waitForSelector('iframe');
  const frame = await element.contentFrame();
  if (frame === null) throw new Error('the frame has no page');
  await frame.waitForFunction('window.publish !== undefined');
  await frame.evaluate(`follow('framed')`);
  await frame.waitForFunction(`live('framed')`);
  await frame.evaluate(`publish('framed', 1)`);
  await frame.waitForFunction(`heard['framed'].length === 1`);
  expect(await frame.evaluate('standing().state')).toBe('connected');
  expect(errors).toEqual([]);
  await page.close();
  await until(() => proxy.open === 0, 'no connection is left');
});

test('a page that is loaded again goes on where it was, and its frames are written down if asked', async () => {
  const { page } = await browser.newPage();
  const lines: string[] = [];
  page.on('console', (message) => lines.push(message.text()));
  await page.goto(`${site.url.href}#alone`);
  await page.waitForFunction('window.publish !== undefined');
  await page.evaluate(`follow('kept')`);
  await page.waitForFunction(`live('kept')`);
  await publish('kept', 1);
  await hears(page, 'kept', [1]);
  expect(lines).toEqual([]);
  await page.evaluate(`localStorage.setItem('sobranie', 'debug')`);

  await page.goto('about:blank');
  await publish('kept', 2);
  await page.goto(`${site.url.href}#alone`);
  await page.waitForFunction('window.publish !== undefined');
  await page.evaluate(`follow('kept')`);
  await hears(page, 'kept', [2]);
  expect(lines.find((line) => line.startsWith('sobranie > {"type":"subscribe"'))).toInclude('"since":');
  expect(lines.some((line) => line.startsWith('sobranie < {"type":"welcome"'))).toBe(true);
  await page.close();
});
