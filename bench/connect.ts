// What a token costs a connection: connections with one beside connections without, to the same process and in the same
// run; the same of a bare server that lets jose verify the token and does nothing more; and jose in a loop of its own.
// The servers' CPU time is compared, of all of their threads: connections per second are told too, but the client takes
// its share of the machine. In a server jose costs more than in a loop: a verification waits for another thread, and
// between two of them there are sockets to serve.
import { readdir, readFile } from 'node:fs/promises';
import { exportSPKI, generateKeyPair, importSPKI, jwtVerify, SignJWT, type CryptoKey } from 'jose';
import { join } from 'node:path';
import { startOurs } from './contenders.ts';
import type { BenchOptions } from './options.ts';
import { BenchError, repositoryRoot, startServer, type ServerProcess } from './server-process.ts';
import { median, printTable, ratio, ratios, thousands } from './table.ts';

const inFlight = 16;
const tokenCount = 500;
const answerMsMax = 10_000;
// A token may cost what jose takes, and half as much again.
const ratioMax = 1.5;

interface Signer {
  readonly alg: 'HS256' | 'ES256';
  // What the server is told to check by, and the bare one.
  readonly settings: Record<string, string>;
  readonly keyText: string;
  readonly signingKey: CryptoKey | Uint8Array;
  readonly verifyingKey: CryptoKey;
}

async function sharedSecret(): Promise<Signer> {
  const secret = crypto.randomUUID() + crypto.randomUUID();
  const bytes = new TextEncoder().encode(secret);
  const algorithm = { name: 'HMAC', hash: 'SHA-256' };
  const verifyingKey = await crypto.subtle.importKey('raw', bytes, algorithm, false, ['verify']);
  return { alg: 'HS256', settings: { JWT_SECRET: secret }, keyText: secret, signingKey: bytes, verifyingKey };
}

async function keyPair(): Promise<Signer> {
  const { privateKey, publicKey } = await generateKeyPair('ES256', { extractable: true });
  const pem = await exportSPKI(publicKey);
  const verifyingKey = await importSPKI(pem, 'ES256');
  return { alg: 'ES256', settings: { JWT_PUBLIC_KEY: pem }, keyText: pem, signingKey: privateKey, verifyingKey };
}

// Another user in each, and rights as a small application gives them.
function tokensOf({ alg, signingKey }: Signer): Promise<string[]> {
  const channels = { 'chat:*': ['subscribe', 'publish', 'history'], posts: ['subscribe'] };
  const sign = (index: number) =>
    new SignJWT({ sub: `user-${index}`, channels })
      .setProtectedHeader({ alg })
      .setIssuedAt()
      .setExpirationTime('1h')
      .sign(signingKey);
  return Promise.all(Array.from({ length: tokenCount }, (_, index) => sign(index)));
}

interface Connects {
  readonly perSecond: number;
  readonly cpuMicros: number;
}

// One server, round by round, without and with tokens.
interface Lane {
  readonly name: string;
  readonly server: ServerProcess;
  readonly without: Connects[];
  readonly with: Connects[];
}

// `beside` is another checkout, whose server takes part.
export async function connect(options: BenchOptions, beside?: string): Promise<void> {
  const rows: string[][] = [];
  const verdicts: string[] = [];
  for (const signer of [await sharedSecret(), await keyPair()])
    verdicts.push(...(await race(signer, options, rows, beside)));
  printTable(
    'Connections by WebSocket, opened and closed again; CPU time of the server',
    ['', 'per second', 'CPU of one, µs', 'of its token', 'jose’s in a server = 1', 'each round'],
    rows,
  );
  console.log(`\n${verdicts.join('\n')}`);
}

async function race(signer: Signer, options: BenchOptions, rows: string[][], beside?: string): Promise<string[]> {
  const rounds = options.quick ? 3 : 7;
  const count = options.quick ? 2_000 : 5_000;
  const tokens = await tokensOf(signer);
  const verifyMicros: number[] = [];
  const lanes: Lane[] = [];
  const open = async (name: string, server: Promise<ServerProcess>): Promise<void> => {
    lanes.push({ name, server: await server, without: [], with: [] });
  };
  try {
    await open('bare', startBare(signer));
    if (beside !== undefined) await open('the other checkout', startTaking(signer, beside));
    if (!options.baselinesOnly) await open('sobranie', startTaking(signer));
    // The first round warms up and is not counted.
    for (let round = -1; round < rounds; round++) {
      const micros = await verifyAlone(signer, tokens, count);
      if (round >= 0) verifyMicros.push(micros);
      for (const lane of lanes) {
        const without = await connectAll(lane.server, count, () => '');
        const held = await connectAll(lane.server, count, (index) => tokens[index % tokenCount] ?? '');
        if (round < 0) continue;
        lane.without.push(without);
        lane.with.push(held);
      }
    }
  } finally {
    await Promise.all(lanes.map(({ server }) => server.stop()));
  }
  return report(signer.alg, lanes, verifyMicros, rows);
}

function startBare({ alg, keyText }: Signer): Promise<ServerProcess> {
  return startServer([process.execPath, join(repositoryRoot, 'bench/baselines/token-upgrade.ts'), alg, keyText]);
}

function startTaking({ settings }: Signer, root: string = repositoryRoot): Promise<ServerProcess> {
  return startOurs({ SYNC: 'memory', ROLE: 'ws', ...settings }, { root });
}

function report(alg: string, lanes: readonly Lane[], verifyMicros: readonly number[], rows: string[][]): string[] {
  const verify = median(verifyMicros);
  rows.push([`jose in a loop, ${alg}`, thousands(1e6 / verify), verify.toFixed(1), '', '', '']);
  const verdicts: string[] = [];
  const [bare] = lanes.map(extraMicros);
  for (const lane of lanes) {
    const extra = extraMicros(lane);
    const shares = extra.map((micros, round) => micros / (bare?.[round] ?? Number.NaN));
    const share = median(extra) / median(bare ?? []);
    rows.push(
      line(`${lane.name}, without a token`, lane.without, '', '', ''),
      line(`${lane.name}, with one, ${alg}`, lane.with, median(extra).toFixed(1), ratio(share), ratios(shares)),
    );
    if (lane.server === lanes[0]?.server) continue;
    const verdict = share <= ratioMax ? 'holds' : 'is missed';
    verdicts.push(`${alg}: a token costs ${ratio(share)} times what jose takes, at most ${ratioMax}: ${verdict}`);
  }
  return verdicts;
}

function extraMicros(lane: Lane): number[] {
  return lane.with.map(({ cpuMicros }, round) => cpuMicros - (lane.without[round]?.cpuMicros ?? Number.NaN));
}

function line(name: string, connects: readonly Connects[], ...more: readonly string[]): string[] {
  const perSecond = median(connects.map((each) => each.perSecond));
  return [name, thousands(perSecond), median(connects.map(({ cpuMicros }) => cpuMicros)).toFixed(1), ...more];
}

// As many at once as the server is asked to verify.
async function verifyAlone({ alg, verifyingKey }: Signer, tokens: readonly string[], count: number): Promise<number> {
  const settings = { algorithms: [alg], clockTolerance: 5 };
  const before = process.cpuUsage();
  await inTurns(count, async (index) => {
    await jwtVerify(tokens[index % tokenCount] ?? '', verifyingKey, settings);
  });
  const { user, system } = process.cpuUsage(before);
  return (user + system) / count;
}

async function connectAll(server: ServerProcess, count: number, tokenAt: (index: number) => string): Promise<Connects> {
  const cpuBefore = await cpuMicrosOf(server.pid);
  const begun = performance.now();
  await inTurns(count, (index) => connectOnce(server.port, tokenAt(index)));
  const seconds = (performance.now() - begun) / 1_000;
  return { perSecond: count / seconds, cpuMicros: ((await cpuMicrosOf(server.pid)) - cpuBefore) / count };
}

async function inTurns(count: number, once: (index: number) => Promise<void>): Promise<void> {
  let next = 0;
  const turn = async (): Promise<void> => {
    while (next < count) await once(next++);
  };
  await Promise.all(Array.from({ length: inFlight }, turn));
}

// A bare socket: what a client library costs is of no interest here.
async function connectOnce(port: number, token: string): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const query = token === '' ? '' : `?token=${token}`;
  let heard = '';
  const timer = setTimeout(() => reject(new BenchError(`no welcome, but: ${heard}`)), answerMsMax);
  const socket = await Bun.connect({
    hostname: '127.0.0.1',
    port,
    socket: {
      open: (opened) => {
        opened.write(
          `GET /realtime/ws${query} HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nUpgrade: websocket\r\n` +
            'Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n',
        );
      },
      data: (_socket, bytes) => {
        heard += bytes.toString('latin1');
        if (!heard.includes('"type":"welcome"')) return;
        // Whose it is shows that the token was read, and that none was made up.
        const named = heard.includes('"user":"user-');
        if (named === (token !== '')) resolve();
        else reject(new BenchError(`a welcome for somebody else: ${heard}`));
      },
      close: () => reject(new BenchError(`closed before the welcome: ${heard}`)),
      error: (_socket, error) => reject(error),
    },
  });
  try {
    await promise;
  } finally {
    clearTimeout(timer);
    socket.end();
  }
}

// By the kernel's own count of what each thread ran, which is finer than its clock ticks.
export async function cpuMicrosOf(pid: number): Promise<number> {
  const folder = `/proc/${pid}/task`;
  const threads = await readdir(folder);
  const times = await Promise.all(threads.map((thread) => readFile(`${folder}/${thread}/schedstat`, 'utf8')));
  return times.reduce((sum, time) => sum + Number(time.split(' ')[0]) / 1_000, 0);
}
