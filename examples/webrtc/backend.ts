// The backend of the calls: the page, a token for a name, and where peers find a way to each other.
//
//   JWT_SECRET=… bun examples/webrtc/backend.ts      then open http://localhost:3003 in two browsers
//
// SOBRANIE_URL is where pages reach the realtime server, http://localhost:3000 unless told otherwise. Peers behind strict
// firewalls need a TURN server: TURN_URLS (such as turn:turn.example.com:3478,turns:turn.example.com:5349) and
// TURN_SECRET, the server's static-auth-secret, by which each user gets credentials for an hour.

import { createHmac } from 'node:crypto';
import { SignJWT } from 'jose';

const { JWT_SECRET = '', SOBRANIE_URL = 'http://localhost:3000', PORT = '3003' } = process.env;
const { TURN_URLS = '', TURN_SECRET = '', STUN_URLS = '' } = process.env;
const credentialSeconds = 3_600;

const built = await Bun.build({ entrypoints: [new URL('page.ts', import.meta.url).pathname], target: 'browser' });
const [script] = built.outputs;
if (script === undefined) throw new Error(built.logs.map(String).join('\n'));

const page = `<!doctype html>
<meta charset="utf-8">
<title>Call</title>
<link rel="icon" href="data:,">
<body data-sobranie="${Bun.escapeHTML(SOBRANIE_URL)}">
<video id="own" autoplay muted playsinline></video>
<div id="peers"></div>
<form><input name="text" aria-label="Text" autocomplete="off"><button>send</button></form>
<ul id="texts"></ul>
<script type="module" src="/page.js"></script>
`;

/** What TURN servers with a shared secret take: a name that says until when it is good, and its signature. */
function iceServers(user: string): object[] {
  const listed = (text: string): string[] => text.split(',').filter((url) => url !== '');
  const stun = listed(STUN_URLS).map((urls) => ({ urls }));
  if (TURN_URLS === '' || TURN_SECRET === '') return stun;
  const username = `${Math.floor(Date.now() / 1_000) + credentialSeconds}:${user}`;
  const credential = createHmac('sha1', TURN_SECRET).update(username).digest('base64');
  return [...stun, { urls: listed(TURN_URLS), username, credential }];
}

/** A real application has sessions; here the cookie is the name. */
const userOf = (request: Bun.BunRequest): string => request.cookies.get('user') ?? 'nobody';

const server = Bun.serve({
  hostname: '127.0.0.1',
  port: Number(PORT),
  routes: {
    '/': (request) => {
      request.cookies.set('user', new URL(request.url).searchParams.get('name') ?? 'nobody', { sameSite: 'strict' });
      return new Response(page, { headers: { 'content-type': 'text/html; charset=utf-8' } });
    },
    '/page.js': new Response(await script.text(), { headers: { 'content-type': 'text/javascript' } }),
    '/ice': { POST: (request) => Response.json(iceServers(userOf(request))) },
    '/token': {
      POST: async (request) => {
        const token = new SignJWT({ sub: userOf(request) })
          .setProtectedHeader({ alg: 'HS256' })
          .setExpirationTime('10 minutes');
        return Response.json(await token.sign(new TextEncoder().encode(JWT_SECRET)));
      },
    },
  },
});
console.log(`open ${server.url}`);
