// The application's own backend: the page, a login, a token for whoever is logged in, and a table that it reads and
// writes. It knows nothing of the live updates but the key that signs tokens: they come from the table.
//
//   DATABASE_URL=… JWT_SECRET=… bun examples/react-orders/backend.ts      then open http://localhost:3001
//
// SOBRANIE_URL is where pages reach the realtime server, http://localhost:3000 unless told otherwise.

import { SignJWT } from 'jose';
import postgres from 'postgres';

const { DATABASE_URL = '', JWT_SECRET = '', SOBRANIE_URL = 'http://localhost:3000', PORT = '3001' } = process.env;
const sql = postgres(DATABASE_URL, { onnotice: () => undefined });
await sql`create table if not exists orders (id serial primary key, customer text not null, status text not null)`;
await sql`select realtime.watch('orders')`;

const tokenSeconds = Number(process.env['TOKEN_SECONDS'] ?? 600);
const key = new TextEncoder().encode(JWT_SECRET);
const built = await Bun.build({
  entrypoints: [new URL('app.tsx', import.meta.url).pathname],
  target: 'browser',
  define: { 'process.env.NODE_ENV': '"production"' },
});
const [script] = built.outputs;
if (script === undefined) throw new Error(built.logs.map(String).join('\n'));

const page = `<!doctype html>
<meta charset="utf-8">
<title>Orders</title>
<link rel="icon" href="data:,">
<body data-sobranie="${Bun.escapeHTML(SOBRANIE_URL)}"><div id="root"></div><script type="module" src="/app.js"></script>
`;

/** A real application has sessions; here the cookie is the name. */
function userOf(request: Bun.BunRequest): string | null {
  return request.cookies.get('user');
}

const server = Bun.serve({
  hostname: '127.0.0.1',
  port: Number(PORT),
  routes: {
    '/': new Response(page, { headers: { 'content-type': 'text/html; charset=utf-8' } }),
    '/app.js': new Response(await script.text(), { headers: { 'content-type': 'text/javascript' } }),
    '/login': {
      POST: async (request) => {
        const user = (await request.formData()).get('user');
        if (typeof user !== 'string') return new Response('no name', { status: 400 });
        request.cookies.set('user', user, { httpOnly: true, sameSite: 'strict' });
        return Response.json(user);
      },
    },
    '/token': {
      POST: async (request) => {
        const user = userOf(request);
        if (user === null) return Response.json(null);
        const token = new SignJWT({ sub: user, channels: { orders: ['subscribe', 'presence'] } })
          .setProtectedHeader({ alg: 'HS256' })
          .setExpirationTime(Math.floor(Date.now() / 1_000) + tokenSeconds);
        return Response.json(await token.sign(key));
      },
    },
    '/orders': { POST: async () => Response.json(await sql`select * from orders order by id`) },
    '/orders/:id/send': {
      POST: async (request) => {
        const [order] = await sql`update orders set status = 'sent' where id = ${request.params.id} returning *`;
        return Response.json(order ?? null);
      },
    },
  },
});
console.log(`open ${server.url}`);
