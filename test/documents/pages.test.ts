// The documents as a server in development shows them: every link between them leads to a page that is there, and every
// anchor to a heading on it. Nothing else of the checkout can be read.

import { afterAll, beforeAll, expect, test } from 'bun:test';
import { readDocuments } from '../support/documents.ts';
import { patient } from '../support/patience.ts';
import { fromSource, startServer, type RunningServer } from '../support/process.ts';

patient();

let server: RunningServer;

beforeAll(async () => {
  server = await startServer({ SYNC: 'memory', NODE_ENV: 'development' }, 60_000, fromSource);
}, 120_000);

afterAll(() => server?.kill9());

interface Page {
  readonly ids: ReadonlySet<string>;
  readonly links: readonly string[];
}

async function read(path: string): Promise<Page> {
  const response = await fetch(server.url + path);
  expect({ path, status: response.status }).toEqual({ path, status: 200 });
  expect(response.headers.get('content-security-policy')).toContain("default-src 'self'");
  const html = await response.text();
  if (response.headers.get('content-type') !== 'text/html; charset=utf-8') return { ids: new Set(), links: [] };
  return {
    ids: new Set(Array.from(html.matchAll(/ id="([^"]+)"/g), ([, id = '']) => id)),
    links: Array.from(html.matchAll(/ (?:href|src)="([^"]+)"/g), ([, href = '']) => href),
  };
}

test('all are reached from /docs, and every link and anchor of theirs is there', async () => {
  const pages = new Map<string, Page>();
  const anchors: string[] = [];
  // The demo is another page.
  const isOurs = ({ origin, pathname }: URL): boolean => origin === server.url && pathname !== '/';
  const visit = async (path: string): Promise<void> => {
    const page = await read(path);
    pages.set(path, page);
    for (const link of page.links) {
      const target = new URL(link, server.url + path);
      if (!isOurs(target)) continue;
      if (target.hash !== '') anchors.push(`${target.pathname}${target.hash}`);
      if (!pages.has(target.pathname)) await visit(target.pathname);
    }
  };
  const start = await fetch(`${server.url}/docs`, { redirect: 'manual' });
  expect([start.status, start.headers.get('location')]).toEqual([302, '/docs/docs/README.md']);
  await visit('/docs/docs/README.md');
  const missing = readDocuments().filter(({ path }) => !pages.has(`/docs/${path}`));
  expect(missing.map(({ path }) => path)).toEqual([]);
  const dead = anchors.filter((anchor) => {
    const [path = '', id = ''] = anchor.split('#');
    return pages.get(path)?.ids.has(decodeURIComponent(id)) !== true;
  });
  expect(dead).toEqual([]);
  expect(anchors.length).toBeGreaterThan(50);
});

test.each(['realtime.config.ts', 'package.json', '.git/config', 'docs/../package.json', 'docs/%2e%2e/package.json'])(
  '%s is not shown',
  async (path) => {
    expect((await fetch(`${server.url}/docs/${path}`)).status).toBe(404);
  },
);

test('in production there are none', async () => {
  const production = await startServer(
    { SYNC: 'memory', NODE_ENV: 'production', ALLOW_ANONYMOUS: 'true' },
    120_000,
    fromSource,
  );
  try {
    expect((await fetch(`${production.url}/docs`)).status).toBe(404);
    expect((await fetch(`${production.url}/docs/README.md`)).status).toBe(404);
  } finally {
    await production.kill9();
  }
});
