// The least that can be done with a token: jose verifies it, and the connection is upgraded. Without one it is upgraded
// at once. Usage: token-upgrade.ts <alg> <secret or public key in PEM form>
import { importSPKI, jwtVerify, type CryptoKey } from 'jose';
import { listeningLine } from './wire.ts';

const [alg = '', text = ''] = process.argv.slice(2);
const settings = { algorithms: [alg], clockTolerance: 5 };
const key = alg === 'HS256' ? await secretKey(text) : await importSPKI(text, alg);

function secretKey(secret: string): Promise<CryptoKey> {
  const algorithm = { name: 'HMAC', hash: 'SHA-256' };
  return crypto.subtle.importKey('raw', new TextEncoder().encode(secret), algorithm, false, ['verify']);
}

const server = Bun.serve<{ user: string | null }>({
  port: 0,
  hostname: '127.0.0.1',
  fetch(request, bunServer) {
    const upgrade = (user: string | null): Response | undefined =>
      bunServer.upgrade(request, { data: { user } })
        ? undefined
        : new Response('expected a WebSocket', { status: 400 });
    const start = request.url.indexOf('?');
    const token = start === -1 ? null : new URLSearchParams(request.url.slice(start + 1)).get('token');
    if (token === null) return upgrade(null);
    return jwtVerify(token, key, settings).then(
      ({ payload }) => upgrade(payload.sub ?? null),
      () => new Response('no token', { status: 401 }),
    );
  },
  websocket: {
    perMessageDeflate: false,
    open: (socket) => void socket.send(JSON.stringify({ type: 'welcome', user: socket.data.user })),
    message: () => undefined,
  },
});

console.log(listeningLine(server.port));
