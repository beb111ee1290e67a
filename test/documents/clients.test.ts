// The clients of the documents work as they stand: in Bun and in a page of the server they subscribe with a token, and
// print what is then published.

import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { launchBrowser, type TestBrowser } from '../support/browser.ts';
import { readDocuments, type CodeBlock } from '../support/documents.ts';
import { temporaryFolder } from '../support/janitor.ts';
import { patient } from '../support/patience.ts';
import { spawnScript, startServer, type RunningServer } from '../support/process.ts';
import { until } from '../support/tcp-client.ts';
import { secret, tokenOf } from '../support/tokens.ts';

patient();

const apiKey = 'the-key-of-the-backend-0123456789';
const backend = { authorization: `Bearer ${apiKey}`, 'content-type': 'application/json' };
const blocks = readDocuments().flatMap((document) => document.blocks);

let server: RunningServer;
let token: string;
let browser: TestBrowser;

beforeAll(async () => {
  token = await tokenOf({ sub: '7', channels: { '*': ['subscribe', 'presence'] } });
  const settings = { SYNC: 'memory', API_KEY: apiKey, JWT_SECRET: secret };
  [server, browser] = await Promise.all([startServer(settings), launchBrowser()]);
});

afterAll(async () => {
  await browser?.close();
  await server?.kill9();
});

function blocksFor(word: string): [string, CodeBlock][] {
  return blocks
    .filter(({ language, words }) => language === 'js' && words.includes(word))
    .map((block) => [block.place, block]);
}

/** Waits until the block's first channel has a subscriber, then publishes what the block is to print. */
async function publishTo({ text, values }: CodeBlock): Promise<void> {
  const channel = /channel: '([^']+)'/.exec(text)?.[1] ?? /channels=([^,&']+)/.exec(text)?.[1];
  await until(async () => {
    const answer = await fetch(`${server.url}/realtime/channels`, { headers: backend });
    const { channels } = (await answer.json()) as { channels: { channel: string }[] };
    return channels.some((each) => each.channel === channel);
  }, `nobody subscribes to ${channel}`);
  const body = JSON.stringify({ channel, data: values.get('prints') ?? null });
  const published = await fetch(`${server.url}/realtime/publish`, { method: 'POST', headers: backend, body });
  expect(published.status).toBe(200);
}

describe('in Bun', () => {
  test.each(blocksFor('run'))('%s', async (_place, block) => {
    const path = join(temporaryFolder(), 'client.js');
    const text = block.text.replaceAll('localhost:3000', new URL(server.url).host).replace('eyJ…', token);
    writeFileSync(path, text);
    const client = spawnScript(path);
    try {
      await publishTo(block);
      await client.waitForOutput(new RegExp(RegExp.escape(block.values.get('prints') ?? '')));
    } finally {
      await client.kill9();
    }
  });
});

describe('in a page of the server', () => {
  test.each(blocksFor('browser'))('%s', async (_place, block) => {
    const { page, errors } = await browser.newPage();
    const printed: string[] = [];
    page.on('console', (message) => printed.push(message.text()));
    await page.context().addCookies([{ name: 'sobranie_token', value: token, url: server.url }]);
    await page.goto(`${server.url}/swagger`);
    // What a page does with a message is its own affair: here it prints it.
    const own = 'const apply = (message) => console.log(JSON.stringify(message)), reload = apply;';
    await page.evaluate(`(async () => { ${own}\n${block.text} })()`);
    await publishTo(block);
    const prints = block.values.get('prints');
    if (prints !== undefined)
      await until(
        () => printed.some((line) => line.includes(prints)),
        () => `nothing but ${printed.join()} is printed`,
      );
    expect(errors).toEqual([]);
    await page.close();
  });
});
