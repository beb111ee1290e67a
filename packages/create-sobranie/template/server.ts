// The backend: logs people in, gives them tickets, and writes the table. The realtime server is a part of it. What is
// written goes from the table to every page that may see it; nothing here has to send it.

import { Elysia, t } from 'elysia';
import postgres from 'postgres';
import { realtime } from '@sobranie/server/elysia';
import { rules } from './realtime.config.ts';

const { SESSION_SECRET, PORT = '3000', HOST = '127.0.0.1', NODE_ENV } = process.env;
if (SESSION_SECRET === undefined) throw new Error('SESSION_SECRET is not set: see .env');

const taskId = t.Object({ id: t.Integer({ minimum: 1 }) });

const live = new Elysia({
  cookie: { secrets: SESSION_SECRET, sign: ['user'], httpOnly: true, sameSite: 'strict', path: '/' },
}).use(realtime({ rules, settings: { ...process.env, DEMO_TABLES: 'false' } }));

// The database of DATABASE_URL, or one that is started now, with its data in .data/.
const sql = postgres(await live.decorator.realtime.databaseUrl(), { onnotice: () => undefined });
await sql.file(new URL('schema.sql', import.meta.url).pathname);

const app = live
  // Such as a cookie that another secret has signed: whoever has it logs in again.
  .onError(({ code, cookie }) => {
    if (code !== 'INVALID_COOKIE_SIGNATURE') return undefined;
    cookie['user']?.remove();
    return new Response('log in again', { status: 401 });
  })
  // Every name is believed. A real application checks a password, or asks another site.
  .post(
    '/api/login',
    ({ body, cookie }) => {
      cookie['user']?.set({ value: body.user });
      return { user: body.user };
    },
    { body: t.Object({ user: t.String({ minLength: 1, maxLength: 40, pattern: '^[^\\u0000-\\u001f]+$' }) }) },
  )
  .post('/api/logout', ({ cookie }) => {
    cookie['user']?.remove();
    return {};
  })
  // From here on, for those alone who have logged in.
  .resolve(({ cookie, status }) => {
    const user = cookie['user']?.value;
    return typeof user === 'string' ? { user } : status(401, 'log in first');
  })
  .get('/api/user', ({ user }) => ({ user }))
  // Opens one connection as this user. The page asks for another one when it reconnects.
  .post('/api/ticket', async ({ user, realtime: calls }) => {
    const expires = Math.floor(Date.now() / 1_000) + 3_600;
    const { ticket } = await calls.ticket({ user, channels: { tasks: ['subscribe', 'presence'] }, expires });
    return { ticket };
  })
  .post(
    '/api/tasks',
    async ({ body, user }) => {
      const [task] = await sql`insert into tasks (title, author) values (${body.title}, ${user}) returning *`;
      return { task };
    },
    { body: t.Object({ title: t.String({ minLength: 1, maxLength: 200 }) }) },
  )
  .patch(
    '/api/tasks/:id',
    async ({ body, params }) => {
      const [task] = await sql`update tasks set done = ${body.done} where id = ${params.id} returning *`;
      return { task: task ?? null };
    },
    { body: t.Object({ done: t.Boolean() }), params: taskId },
  )
  .delete(
    '/api/tasks/:id',
    async ({ params }) => {
      await sql`delete from tasks where id = ${params.id}`;
      return {};
    },
    { params: taskId },
  );

// In development Vite serves the page.
if (NODE_ENV === 'production') {
  const dist = new URL('dist/', import.meta.url).pathname;
  for (const name of new Bun.Glob('**/*').scanSync(dist)) app.get(`/${name}`, () => Bun.file(dist + name));
  app.get('/', () => Bun.file(`${dist}index.html`));
}

app.listen({ port: Number(PORT), hostname: HOST });
if (NODE_ENV === 'production') console.log(`open http://localhost:${PORT}`);

let isLeaving = false;
async function leave(): Promise<void> {
  if (isLeaving) return;
  isLeaving = true;
  // In production the pages are told first, and come back to the next server one by one.
  await app.stop(NODE_ENV !== 'production');
  await sql.end({ timeout: 1 });
  process.exit(0);
}
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => void leave());
