// The WebRTC example, as it stands in examples/webrtc: two Chromium pages on two nodes find each other through the
// realtime server, and then see each other's (fake) camera and send texts without it.

import { afterAll, beforeAll, expect, test } from 'bun:test';
import { createHmac } from 'node:crypto';
import type { Page } from 'playwright-core';
import { launchBrowser, type TestBrowser } from '../support/browser.ts';
import { startNodes, stopNodes } from '../support/nodes.ts';
import { patient } from '../support/patience.ts';
import { createDatabase, type TestDatabase } from '../support/postgres.ts';
import { spawnScript, type RunningProcess, type RunningServer } from '../support/process.ts';
import { secret } from '../support/tokens.ts';

patient();

let database: TestDatabase;
let nodes: RunningServer[] = [];
let backend: RunningProcess;
let url: string;
let browser: TestBrowser;

beforeAll(async () => {
  database = await createDatabase({ migrated: true });
  nodes = await startNodes(2, () => ({
    DATABASE_URL: database.url,
    JWT_SECRET: secret,
    ALLOWED_ORIGINS: '*',
    CONFIG_FILE: 'examples/webrtc/realtime.config.ts',
    PRESENCE_GRACE: '1',
  }));
  backend = spawnScript('examples/webrtc/backend.ts', {
    JWT_SECRET: secret,
    SOBRANIE_URL: nodes[0]!.url,
    PORT: '0',
  });
  [, url = ''] = await backend.waitForOutput(/open (http\S+)/);
  browser = await launchBrowser([
    '--use-fake-device-for-media-stream=fps=5',
    '--use-fake-ui-for-media-stream',
    // Names of the local network, under which Chromium hides addresses, need somebody who resolves them.
    '--disable-features=WebRtcHideLocalIpsWithMdns',
  ]);
}, 60_000);

afterAll(async () => {
  await browser?.close();
  await backend?.stop();
  await stopNodes(nodes);
  await database?.drop();
}, 60_000);

async function enter(name: string, node: RunningServer): Promise<Page> {
  const page = await (await browser.newContext()).newPage();
  await page.goto(`${url}?name=${name}&server=${encodeURIComponent(node.url)}`);
  return page;
}

/** The peer's picture is connected, and moves. */
const sees = (page: Page): Promise<unknown> =>
  page.waitForFunction(
    `(() => { const video = document.querySelector('#peers video');
      return video?.dataset.state === 'connected' && video.videoWidth > 0 && video.currentTime > 0.2; })()`,
  );

test('two pages on two nodes call each other, and again after one was reloaded', async () => {
  const [ann, bob] = await Promise.all([enter('ann', nodes[0]!), enter('bob', nodes[1]!)]);
  await Promise.all([sees(ann), sees(bob)]);
  for (const [from, to, name] of [
    [ann, bob, 'ann'],
    [bob, ann, 'bob'],
  ] as const) {
    await from.getByLabel('Text').fill(`hello from ${name}`);
    await from.keyboard.press('Enter');
    await to.getByText(`${name}: hello from ${name}`).waitFor();
  }
  await bob.reload();
  await Promise.all([sees(bob), ann.waitForFunction('document.querySelectorAll("#peers video").length === 1')]);
  await sees(ann);
  expect(await Promise.all([ann, bob].map((page) => page.evaluate('document.body.dataset.error ?? null')))).toEqual([
    null,
    null,
  ]);
});

test('with a TURN server set, users get credentials that it can check', async () => {
  const withTurn = spawnScript('examples/webrtc/backend.ts', {
    JWT_SECRET: secret,
    TURN_URLS: 'turn:turn.example.com:3478',
    TURN_SECRET: 'shared with the TURN server',
    PORT: '0',
  });
  const [, address = ''] = await withTurn.waitForOutput(/open (http\S+)/);
  const [server] = (await (
    await fetch(`${address}ice`, { method: 'POST', headers: { cookie: 'user=ann' } })
  ).json()) as { urls: string[]; username: string; credential: string }[];
  expect(server).toMatchObject({ urls: ['turn:turn.example.com:3478'] });
  const [until = '', user] = server!.username.split(':');
  expect([user, Number(until) > Date.now() / 1_000]).toEqual(['ann', true]);
  const expected = createHmac('sha1', 'shared with the TURN server').update(server!.username).digest('base64');
  expect(server!.credential).toBe(expected);
  await withTurn.stop();
});
