// Tickets in a real browser: a page of another origin gets one by its cookie, opens a stream with it, and goes on with
// another when the browser has given up on the used one. A page that nobody listed gets none.

import { afterAll, beforeAll, expect, test } from 'bun:test';
import { launchBrowser, type TestBrowser } from '../support/browser.ts';
import { startServer, type RunningServer } from '../support/process.ts';
import { until } from '../support/tcp-client.ts';
import { secret, tokenOf } from '../support/tokens.ts';
import { post } from '../wire/wire.ts';
import { patient } from '../support/patience.ts';

patient();

const apiKey = 'the-key-of-the-backend-0123456789';
const backend = { authorization: `Bearer ${apiKey}` };

/** What docs/access.md tells a page to do; `log` is for the test. */
const script = `
  const log = [];
  let cursor = '';
  async function open(server, channels) {
    let answer;
    try {
      answer = await fetch(server + '/realtime/ticket', { method: 'POST', credentials: 'include' });
    } catch (error) {
      return log.push('refused');
    }
    const { ticket } = await answer.json();
    const since = cursor === '' ? '' : '&since=' + encodeURIComponent(cursor);
    const query = '?channels=' + encodeURIComponent(channels) + '&token=' + ticket + since;
    const source = new EventSource(server + '/realtime/events' + query);
    const on = (type, text) => source.addEventListener(type, (event) => {
      cursor = event.lastEventId;
      log.push(text(JSON.parse(event.data)));
    });
    on('welcome', ({ user }) => 'welcome ' + user);
    on('message', ({ data }) => 'message ' + data);
    on('gap', () => 'gap');
    source.onerror = () => {
      log.push('error ' + source.readyState);
      if (source.readyState === EventSource.CLOSED) setTimeout(open, 100, server, channels);
    };
  }
`;

function servePage(): Bun.Server<undefined> {
  const page = `<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><script>${script}</script>`;
  return Bun.serve({
    hostname: '127.0.0.1',
    port: 0,
    fetch: () => new Response(page, { headers: { 'content-type': 'text/html; charset=utf-8' } }),
  });
}

let browser: TestBrowser;
let listed: Bun.Server<undefined>;
let stranger: Bun.Server<undefined>;
let server: RunningServer;

beforeAll(async () => {
  [listed, stranger] = [servePage(), servePage()];
  const settings = {
    SYNC: 'memory',
    JWT_SECRET: secret,
    API_KEY: apiKey,
    ALLOWED_ORIGINS: listed.url.origin,
    SSE_RETRY: '100',
    SHUTDOWN_TIMEOUT: '0',
  };
  [server, browser] = await Promise.all([startServer(settings), launchBrowser()]);
}, 60_000);

afterAll(async () => {
  await browser.close();
  await server.stop();
  await Promise.all([listed.stop(true), stranger.stop(true)]);
}, 60_000);

/** A page that has opened a stream, and what it has heard so far. */
async function visit(
  at: Bun.Server<undefined>,
): Promise<{ heard: () => Promise<string[]>; close: () => Promise<void> }> {
  const { page } = await browser.newPage();
  const token = await tokenOf({ sub: 'ann', channels: { 'chat:*': ['subscribe'] } });
  // Cookies know hosts and no ports, so both pages have it.
  await page.context().addCookies([{ name: 'sobranie_token', value: token, url: server.url }]);
  await page.goto(at.url.href);
  await page.evaluate(`open(${JSON.stringify(server.url)}, 'chat:1')`);
  return { heard: () => page.evaluate<string[]>('log'), close: () => page.close() };
}

test('a page of a listed origin goes on where it was, by a ticket for each stream', async () => {
  const { heard, close } = await visit(listed);
  const hears = (text: string): Promise<void> =>
    until(async () => (await heard()).includes(text), `the page has heard "${text}"`, 20_000, 20);
  const publish = (data: string) => post(server, '/realtime/publish', { channel: 'chat:1', data }, backend);
  await hears('welcome ann');
  await publish('before');
  await hears('message before');
  expect((await post(server, '/realtime/users/ann/disconnect', {}, backend)).status).toBe(200);
  await publish('meanwhile');
  await hears('message meanwhile');
  await publish('after');
  await hears('message after');
  // It connects anew by itself, is refused with the used ticket, stops, and the page opens another stream.
  expect(await heard()).toEqual([
    'welcome ann',
    'message before',
    'error 0',
    'error 2',
    'welcome ann',
    'message meanwhile',
    'message after',
  ]);
  await close();
});

test('a page of another origin gets no ticket, though its visitor has the cookie', async () => {
  const { heard, close } = await visit(stranger);
  await until(async () => (await heard()).length > 0, 'the page was answered', 20_000, 20);
  expect(await heard()).toEqual(['refused']);
  await close();
});
