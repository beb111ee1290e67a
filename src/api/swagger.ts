// The API's documentation at `/swagger`. Its page and assets are served from here, so it works without internet.

import { dirname } from 'node:path';
import { swagger } from '@elysiajs/swagger';
import { Elysia } from 'elysia';
import { answerHeaders } from '../http/answer-headers.ts';
import { isExecutable, packageFiles, shippedPath } from '../shipped/files.ts';

/** Files of the package `swagger-ui-dist`. */
export const assets: Readonly<Record<string, string>> = {
  'swagger-ui.css': 'text/css; charset=utf-8',
  'swagger-ui-bundle.js': 'text/javascript; charset=utf-8',
};

const page = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Sobranie API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/swagger/assets/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="/swagger/assets/swagger-ui-bundle.js"></script>
<script src="/swagger/assets/start.js"></script>
</body>
</html>
`;

/** The page needs styles in attributes, and icons in data URLs. */
const pageHeaders = {
  ...answerHeaders,
  'content-security-policy':
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; base-uri 'none';" +
    " form-action 'none'; frame-ancestors 'none'; object-src 'none'",
};

const startScript = `SwaggerUIBundle({ url: '/swagger/json', dom_id: '#swagger-ui' });\n`;

export function swaggerRoutes(version: string): Elysia {
  const app = new Elysia({ name: 'sobranie-swagger' });
  for (const [name, type] of Object.entries(assets)) {
    app.get(`/swagger/assets/${name}`, () => fileResponse(name, type), { detail: { hide: true } });
  }
  app
    .get('/swagger/assets/start.js', () => textResponse(startScript, 'text/javascript; charset=utf-8'), {
      detail: { hide: true },
    })
    .onBeforeHandle(({ set }) => {
      Object.assign(set.headers, answerHeaders);
    })
    .use(
      swagger({
        path: '/swagger',
        provider: 'swagger-ui',
        documentation: {
          info: {
            title: 'Sobranie',
            version,
            description:
              'Realtime over WebSocket and server-sent events. Frames are described in the protocol document.',
          },
          components: { securitySchemes: { apiKey: { type: 'http', scheme: 'bearer' } } },
        },
      }),
    )
    // In place of the plugin's own page, which loads its assets from another host.
    .get('/swagger', () => textResponse(page, 'text/html; charset=utf-8'), { detail: { hide: true } });
  return app;
}

/** Where the files of the page are; undefined where an application has not installed them. */
export function swaggerFolder(): string | undefined {
  if (isExecutable) return shippedPath(packageFiles);
  try {
    return dirname(Bun.resolveSync('swagger-ui-dist/package.json', import.meta.dir));
  } catch {
    return undefined;
  }
}

function fileResponse(name: string, type: string): Response {
  const folder = swaggerFolder();
  if (folder === undefined) throw new Error('the package swagger-ui-dist is not installed');
  return new Response(Bun.file(`${folder}/${name}`), {
    headers: { ...pageHeaders, 'content-type': type, 'cache-control': 'public, max-age=3600' },
  });
}

function textResponse(text: string, type: string): Response {
  return new Response(text, { headers: { ...pageHeaders, 'content-type': type, 'cache-control': 'no-cache' } });
}
