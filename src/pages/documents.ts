// The documents of this checkout as pages, beside the demo: Markdown as HTML, and what it links to as text. Each has the
// path that it has in the checkout, so that links between them lead where they should.

import type { Elysia } from 'elysia';
import { existsSync, readdirSync } from 'node:fs';
import { join, relative } from 'node:path';
import { shippedPath } from '../shipped/files.ts';
import { pageFiles, pageHeaders } from './page-files.ts';

/** Nothing else of the checkout is served: people keep settings, rules and data beside it. */
const folders = ['deploy', 'docs', 'examples', 'src/protocol'];
const files = ['CONTRIBUTING.md', 'README.md'];
const contents = '/docs/docs/README.md';

const headers = { ...pageHeaders, 'cache-control': 'no-cache' };
const textHeaders = { ...headers, 'content-type': 'text/plain; charset=utf-8' };

/** Whether there are any: an executable has none inside. */
export function hasDocuments(): boolean {
  return existsSync(shippedPath('docs/README.md'));
}

export function documentPages(): Elysia {
  const app = pageFiles({ '/docs.css': 'documents.css' });
  const pages = new Map<string, () => Response | Promise<Response>>();
  const isPage = (path: string): boolean => pages.has(path);
  const addFile = (path: string): void => void pages.set(`/docs/${path}`, () => fileAt(path, isPage));
  files.forEach(addFile);
  for (const folder of folders) {
    const entries = readdirSync(shippedPath(folder), { recursive: true, withFileTypes: true });
    for (const entry of entries) {
      if (entry.isFile()) addFile(relative(shippedPath('.'), join(entry.parentPath, entry.name)));
    }
  }
  pages.set('/docs', () => new Response(null, { status: 302, headers: { ...headers, location: contents } }));
  for (const [path, answer] of pages) app.get(path, answer, { detail: { hide: true } });
  return app;
}

async function fileAt(path: string, isPage: (path: string) => boolean): Promise<Response> {
  const file = Bun.file(shippedPath(path));
  if (/\.(png|svg)$/.test(path)) return new Response(file, { headers });
  if (!path.endsWith('.md')) return new Response(file, { headers: textHeaders });
  const text = await file.text();
  const html = Bun.markdown.html(text, { headings: { ids: true } });
  // A link to what is not served, code or a folder, is its text alone.
  const element = (link: HTMLRewriterTypes.Element): void => {
    const { origin, pathname, hash } = new URL(link.getAttribute('href') ?? '', `http://here/docs/${path}`);
    if (origin !== 'http://here') return;
    // The runtime's anchors have no `_`, those of code hosts have.
    if (isPage(pathname)) link.setAttribute('href', pathname + hash.replaceAll('_', ''));
    else link.removeAndKeepContent();
  };
  const title = /^# (.+)$/m.exec(text)?.[1] ?? path;
  return page(title, new HTMLRewriter().on('a[href]', { element }).on('pre, table', scrolled).transform(html));
}

/** What may be wider than the page scrolls by itself, with the keyboard too. */
const scrolled = {
  element(wide: HTMLRewriterTypes.Element): void {
    wide.before('<div class="wide" tabindex="0">', { html: true });
    wide.after('</div>', { html: true });
  },
};

function page(title: string, body: string): Response {
  const html = [
    '<!doctype html><html lang="en"><head><meta charset="utf-8" />',
    '<meta name="viewport" content="width=device-width, initial-scale=1" />',
    `<title>${Bun.escapeHTML(title)} · Sobranie</title><link rel="icon" href="/demo/demo.svg" type="image/svg+xml" />`,
    '<link rel="stylesheet" href="/demo/demo-theme.css" /><link rel="stylesheet" href="/docs.css" /></head><body>',
    `<nav aria-label="Documents"><a href="${contents}">All documents</a> <a href="/">Demo</a></nav>`,
    `<main>${body}</main></body></html>`,
  ];
  return new Response(html.join(''), { headers: { ...headers, 'content-type': 'text/html; charset=utf-8' } });
}
