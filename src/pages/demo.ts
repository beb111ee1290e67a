// The demo: a page that shows the table `posts` live, over WebSocket beside EventSource, with its files and a small API
// through which its buttons write rows. The page reads the public endpoints like any client. Not for production: the
// API lets anyone who reaches the port write to the table.

import { Elysia, ValidationError, status, t } from 'elysia';
import type { Sql } from 'postgres';
import { endingHeaders, readJsonBody } from '../http/request.ts';
import { RealtimeError } from '../protocol/realtime-error.ts';
import { clientFile, pageFiles, pageHeaders } from './page-files.ts';
import { documentPages, hasDocuments } from './documents.ts';
import { createPosts, type Post, type Posts } from './posts.ts';

export interface DemoPagesOptions {
  /** False mounts no route. */
  readonly enabled: boolean;
  /** Without a database the page offers publishing only. */
  readonly sql: Sql | undefined;
  /** The shell line that opens the database, such as `psql postgres://…`. Everyone who opens the page reads it. */
  readonly psql: string | undefined;
  readonly node: string;
  readonly sync: string;
  /** Details of a failed request: the client gets the code and a fixed text alone. */
  readonly onFailure?: (error: unknown) => void;
}

/** Far above the largest valid post. */
const bodyBytesMax = 16_384;
const bodyLimit = { bytesMax: bodyBytesMax, tooLarge: `The body is larger than ${bodyBytesMax} bytes.` };

const modules = ['demo', 'demo-api', 'demo-column', 'demo-connection', 'demo-cut', 'demo-feed', 'demo-own'];
const files = {
  '/': 'demo.html',
  '/demo/demo-theme.css': 'demo-theme.css',
  '/demo/demo.css': 'demo.css',
  '/demo/demo.svg': 'demo.svg',
  ...Object.fromEntries(modules.map((module) => [`/demo/${module}.js`, `${module}.js`])),
};

// A text in PostgreSQL cannot hold U+0000. It is refused here as an error of the sender, and not of the database.
const titleSchema = t.String({
  minLength: 1,
  maxLength: 200,
  pattern: '^[^\\u0000]*[^\\s\\u0000][^\\u0000]*$',
  description: '1 to 200 characters, not all of them spaces',
});
const bodySchema = t.String({
  maxLength: 2_000,
  pattern: '^[^\\u0000]*$',
  description: 'text of at most 2000 characters',
});
const params = t.Object({
  id: t.String({ pattern: '^[1-9][0-9]{0,17}$', description: 'the number of a row' }),
});

export function demoPages(options: DemoPagesOptions): Elysia {
  const plugin = new Elysia({ name: 'demo-pages' });
  if (!options.enabled) return plugin;

  plugin.use(pageFiles(files)).use(clientFile('/demo/sobranie.js'));
  const { sql, psql, node, sync } = options;
  const documents = hasDocuments();
  if (documents) plugin.use(documentPages());
  const info = { node, sync, psql: psql ?? null, database: sql !== undefined, documents };
  plugin.get('/demo/info', () => Response.json(info, { headers: pageHeaders }), {
    detail: { tags: ['demo'], summary: 'What the demo page shows of this server' },
  });
  if (sql !== undefined) plugin.use(postsApi(createPosts(sql), options));
  return plugin;
}

function postsApi(posts: Posts, { onFailure }: DemoPagesOptions) {
  return new Elysia({ prefix: '/demo/posts', detail: { tags: ['demo'] } })
    .onError(({ error, code, request, set }) => {
      const failure = toRealtimeError(error, String(code));
      if (failure.status >= 500) onFailure?.(failure);
      set.status = failure.status;
      Object.assign(set.headers, pageHeaders, endingHeaders(request, failure));
      return { error: failure.body() };
    })
    .onTransform(({ set }) => {
      Object.assign(set.headers, pageHeaders);
    })
    .get('', async () => ({ posts: await posts.newest() }), {
      detail: { summary: 'The newest rows of public.posts' },
    })
    .post('', async ({ body: { title, body = '' } }) => answer(await posts.insert({ title, body }), 201), {
      parse,
      body: t.Object({ title: titleSchema, body: t.Optional(bodySchema) }),
      detail: { summary: 'Insert a row into public.posts' },
    })
    .patch('/:id', async ({ params: { id }, body: fields }) => answer(await posts.update(id, fields)), {
      params,
      parse,
      body: t.Object({ title: t.Optional(titleSchema), body: t.Optional(bodySchema) }, { minProperties: 1 }),
      detail: { summary: 'Update a row of public.posts' },
    })
    .delete('/:id', async ({ params: { id } }) => answer(await posts.remove(id)), {
      params,
      detail: { summary: 'Delete a row of public.posts' },
    });
}

function answer(post: Post | undefined, code: 200 | 201 = 200) {
  if (post !== undefined) return status(code, post);
  return status(404, {
    error: new RealtimeError('bad_request', 'This post does not exist (any more).').body(),
  });
}

async function parse({ request }: { request: Request }): Promise<unknown> {
  const { members } = await readJsonBody(request, bodyLimit);
  // The framework's report of a wrong field prints the value, and fails for one that cannot be printed, such as
  // `{"toString": 1}`.
  for (const [name, value] of Object.entries(members)) {
    if (typeof value === 'object') throw new RealtimeError('bad_request', `Field "${name.slice(0, 20)}" must be text.`);
  }
  return members;
}

function toRealtimeError(error: unknown, code: string): RealtimeError {
  if (error instanceof RealtimeError) return error;
  // What our own parsers throw arrives wrapped.
  if (error instanceof Error && error.cause instanceof RealtimeError) return error.cause;
  if (code === 'PARSE') return new RealtimeError('bad_request', 'The body is not valid JSON.', { cause: error });
  if (code === 'VALIDATION') return new RealtimeError('bad_request', describeInvalid(error), { cause: error });
  return new RealtimeError('internal', undefined, { cause: error });
}

// The framework's own message repeats the whole schema and what was sent. One sentence about the first fault is enough.
function describeInvalid(error: unknown): string {
  const fault = error instanceof ValidationError ? error.valueError : undefined;
  if (fault === undefined) return 'A field of the request is missing or malformed.';
  const field = fault.path.slice(1).replaceAll('/', '.');
  if (field === '') return `The request is malformed: ${fault.message}.`;
  const { description } = fault.schema;
  return description === undefined ? `Field "${field}": ${fault.message}.` : `Field "${field}" must be ${description}.`;
}
