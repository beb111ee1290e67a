// The live table in the frameworks that pages are made with: the Vue and Svelte examples and React in StrictMode, each in
// a real browser; React on a server, where nothing may be subscribed; a collection of TanStack DB.

import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { createCollection } from '@tanstack/db';
import { join } from 'node:path';
import { createElement } from 'react';
import { renderToString } from 'react-dom/server';
import { compile } from 'svelte/compiler';
import { compileScript, parse } from 'vue/compiler-sfc';
import { liveTable, Sobranie, type Change } from '@sobranie/client';
import { useLiveTable } from '@sobranie/react';
import { sobranieCollection } from '@sobranie/tanstack-db';
import { launchBrowser, type TestBrowser } from '../support/browser.ts';
import { patient } from '../support/patience.ts';
import { startServer, type RunningServer } from '../support/process.ts';
import { until } from '../support/tcp-client.ts';
import { post } from '../wire/wire.ts';

patient();

interface Order {
  readonly id: number;
  readonly customer: string;
  readonly status: string;
}

const root = join(import.meta.dir, '../..');
const frameworks = {
  Vue: {
    entry: 'examples/vue-orders/orders.vue',
    mount: "import { createApp } from 'vue'; createApp(App).mount('#root');",
  },
  Svelte: {
    entry: 'examples/svelte-orders/orders.svelte',
    mount: "import { mount } from 'svelte'; mount(App, { target: document.querySelector('#root') });",
  },
  React: { entry: 'test/client/strict-orders.tsx', mount: '' },
};

let server: RunningServer;
let browser: TestBrowser;

beforeAll(async () => {
  const settings = { SYNC: 'memory', ALLOWED_ORIGINS: '*', SHUTDOWN_TIMEOUT: '0', BROADCAST_INTERVAL: '0' };
  [server, browser] = await Promise.all([startServer(settings), launchBrowser()]);
}, 60_000);

afterAll(async () => {
  await browser.close();
  await server.stop();
}, 60_000);

const order = (id: number, status: string): Order => ({ id, customer: `customer ${id}`, status });
const change = (action: Change['action'], data: Order | null, old: Partial<Order> | null = null) =>
  ({ action, schema: 'public', table: 'orders', data, old }) as Change<Order>;

async function publish(channel: string, data: unknown): Promise<void> {
  expect((await post(server, '/realtime/publish', { channel, data })).status).toBe(200);
}

async function bundle({ entry, mount }: { readonly entry: string; readonly mount: string }): Promise<string> {
  const start = mount === '' ? `import '${entry}';` : `import App from '${entry}'; ${mount}`;
  const { outputs, logs } = await Bun.build({
    entrypoints: ['start'],
    target: 'browser',
    conditions: ['browser'],
    define: {
      'process.env.NODE_ENV': '"development"',
      __VUE_OPTIONS_API__: 'false',
      __VUE_PROD_DEVTOOLS__: 'false',
      __VUE_PROD_HYDRATION_MISMATCH_DETAILS__: 'false',
    },
    plugins: [
      {
        name: 'single file components',
        setup(build) {
          build.onResolve({ filter: /^start$/ }, ({ path }) => ({ path, namespace: 'start' }));
          build.onLoad({ filter: /.*/, namespace: 'start' }, () => ({
            contents: start,
            loader: 'js',
            resolveDir: root,
          }));
          build.onResolve({ filter: /^(examples|test)\// }, ({ path }) => ({ path: join(root, path) }));
          build.onLoad({ filter: /\.svelte$/ }, async ({ path }) => ({
            contents: compile(await Bun.file(path).text(), { filename: path }).js.code,
            loader: 'js',
          }));
          build.onLoad({ filter: /\.vue$/ }, async ({ path }) => {
            const { descriptor } = parse(await Bun.file(path).text(), { filename: path });
            return {
              contents: compileScript(descriptor, { id: 'orders', inlineTemplate: true }).content,
              loader: 'js',
            };
          });
        },
      },
    ],
  });
  const [output] = outputs;
  if (output === undefined) throw new Error(logs.map(String).join('\n'));
  return output.text();
}

describe.each(Object.keys(frameworks) as (keyof typeof frameworks)[])('%s', (name) => {
  test('shows the table as it is', async () => {
    const script = await bundle(frameworks[name]);
    let loads = 0;
    const loadedAs: (string | null)[] = [];
    const site = Bun.serve({
      hostname: '127.0.0.1',
      port: 0,
      routes: {
        '/orders': ({ url }) => {
          loads++;
          loadedAs.push(new URL(url).searchParams.get('as'));
          return Response.json([order(1, 'new'), order(2, 'new')]);
        },
        '/start.js': () => new Response(script, { headers: { 'content-type': 'text/javascript' } }),
        '/': () =>
          new Response(
            `<!doctype html><link rel="icon" href="data:,"><body data-sobranie="${server.url}">` +
              '<div id="root"></div><script type="module" src="/start.js"></script>',
            { headers: { 'content-type': 'text/html' } },
          ),
      },
    });
    const { page, errors } = await browser.newPage();
    await page.goto(site.url.href);
    await page.getByText('live').waitFor();
    await publish('orders', change('INSERT', order(3, 'new')));
    await publish('orders', change('UPDATE', order(1, 'sent'), { id: 1, status: 'new' }));
    await publish('orders', change('DELETE', null, order(2, 'new')));
    await page.getByText('customer 3: new').waitFor();
    await page.getByText('customer 2').waitFor({ state: 'detached' });
    expect(await page.getByRole('listitem').allTextContents()).toEqual(['customer 1: sent', 'customer 3: new']);
    if (name === 'React') {
      await page.getByText('live live connected 1').waitFor();
      await publish('news', 'one');
      await page.getByText('one').waitFor();
      await publish('news', 'two');
      await page.getByText('one two').waitFor();
      // Mounted twice, subscribed once.
      const { channels } = (await (await fetch(`${server.url}/realtime/channels`)).json()) as {
        channels: { channel: string; subscribers: number }[];
      };
      expect(channels.find(({ channel }) => channel === 'news')?.subscribers).toBe(1);
    }
    // Also where everything is mounted twice.
    expect(loads).toBe(1);
    if (name === 'React') {
      // What is loaded again later is loaded by the newest rendering's function: that of the first one knew another user.
      await page.getByRole('button', { name: 'ann' }).click();
      await page.getByRole('button', { name: 'bob' }).waitFor();
      await publish('orders', change('DELETE', null));
      await until(() => loads === 2, 'it loads again');
      expect(loadedAs).toEqual(['ann', 'bob']);
    }
    expect(errors).toEqual([]);
    await page.close();
    await site.stop(true);
  });
});

test('React on a server renders the first state and connects to nothing', () => {
  const client = new Sobranie<{ orders: Change<Order> }>('http://127.0.0.1:9');
  const Orders = (): React.ReactNode => {
    const { rows, status } = useLiveTable(client, 'orders', { key: 'id', load: () => Promise.reject(new Error('no')) });
    return createElement('p', null, `${status} ${rows.length}`);
  };
  expect(renderToString(createElement(Orders))).toBe('<p>idle 0</p>');
  expect(client.status.state).toBe('idle');
});

test('a collection of TanStack DB is the table, and takes writes', async () => {
  const client = new Sobranie<{ things: Change<Order> }>(server.url);
  const load = async (): Promise<Order[]> => [order(1, 'new'), order(2, 'new')];
  const stored: string[] = [];
  const things = createCollection(
    sobranieCollection(client, 'things', {
      key: 'id',
      load,
      onUpdate: async ({ transaction }) => {
        const [{ modified }] = transaction.mutations;
        stored.push(modified.status);
        await publish('things', change('UPDATE', modified, { id: modified.id }));
      },
    }),
  );
  const rows = await things.toArrayWhenReady();
  expect(rows.map(({ id, status }) => [id, status])).toEqual([
    [1, 'new'],
    [2, 'new'],
  ]);
  await publish('things', change('INSERT', order(3, 'new')));
  await publish('things', change('DELETE', null, order(1, 'new')));
  await until(() => things.has('3') && !things.has('1'), 'the changes are in the collection');
  const update = things.update('2', (draft) => {
    Object.assign(draft, { status: 'sent' });
  });
  const states = [things.get('2')?.status];
  things.subscribeChanges(() => states.push(things.get('2')?.status));
  await update.isPersisted.promise;
  expect(stored).toEqual(['sent']);
  // The old state never shows through.
  expect(new Set(states)).toEqual(new Set(['sent']));
  expect(things.get('2')?.status).toBe('sent');
  await things.cleanup();
  client.close();
});

// Whoever waited for its first rows, such as a router, waited for ever.
test('a collection of TanStack DB whose channel is refused says so', async () => {
  const client = new Sobranie<{ 'no name': Change<Order> }>(server.url);
  const things = createCollection(sobranieCollection(client, 'no name', { key: 'id' }));
  const error: unknown = await things.preload().catch((reason: unknown) => reason);
  expect(error).toMatchObject({ code: 'bad_channel' });
  expect(things.status).toBe('error');
  await things.cleanup();
  client.close();
});

test('two tables over one channel see the same', async () => {
  const client = new Sobranie<{ shared: Change<Order> }>(server.url);
  const load = async (): Promise<Order[]> => [order(1, 'new')];
  const tables = [0, 1].map(() => liveTable(client, 'shared', { key: 'id', load }));
  const stops = tables.map((table) => table.subscribe(() => undefined));
  await until(() => tables.every(({ status }) => status === 'live'), 'both are live');
  await publish('shared', change('INSERT', order(2, 'new')));
  await until(() => tables.every(({ rows }) => rows.length === 2), 'both have it');
  for (const stop of stops) stop();
  client.close();
});
