// Files of the server's own pages, and the headers with which they are sent: nothing that a page loads comes from
// another host, and no other page may show it in a frame.

import { Elysia } from 'elysia';
import { shippedPath } from '../shipped/files.ts';
import { clientScript } from './client-script.ts';

export const pageHeaders = {
  'content-security-policy':
    "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'",
  'cross-origin-resource-policy': 'same-origin',
  'referrer-policy': 'no-referrer',
  'x-content-type-options': 'nosniff',
};
const fileHeaders = { ...pageHeaders, 'cache-control': 'no-cache' };

const types: Readonly<Record<string, string>> = {
  html: 'text/html; charset=utf-8',
  css: 'text/css; charset=utf-8',
  js: 'text/javascript; charset=utf-8',
  svg: 'image/svg+xml',
};

/** `files` by the path at which each is served. */
export function pageFiles(files: Readonly<Record<string, string>>): Elysia {
  const app = new Elysia();
  for (const [path, name] of Object.entries(files)) {
    const location = shippedPath(`src/pages/${name}`);
    const headers = { ...fileHeaders, 'content-type': types[name.slice(name.lastIndexOf('.') + 1)] ?? '' };
    app.get(path, () => new Response(Bun.file(location), { headers }), { detail: { hide: true } });
  }
  return app;
}

/** The client's package at `path`, for pages to import. */
export function clientFile(path: string): Elysia {
  const headers = { ...fileHeaders, 'content-type': types['js'] ?? '' };
  const app = new Elysia();
  app.get(path, async () => new Response(await clientScript(), { headers }), { detail: { hide: true } });
  return app;
}
