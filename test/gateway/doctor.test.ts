// `sobranie doctor` behind gateways that are set wrongly, each in one way: it finds the fault, and names the setting of
// the gateway that it has recognised. Behind those that are set as shipped it finds nothing.

import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { cachingProxy, gzippingProxy, oldProxy, type BadProxy } from '../support/bad-proxies.ts';
import { gatewayKinds, type Gateway } from '../support/gateways.ts';
import { startNode, stopNodes } from '../support/nodes.ts';
import { patient } from '../support/patience.ts';
import { spawnCommand, type Environment, type RunningServer } from '../support/process.ts';

patient();

const operator = { API_KEY: 'the-key-of-the-backend', ADMIN_KEY: 'the-key-of-the-operator' };

let node: RunningServer;
let distrustful: RunningServer;
/** Without keys, so that the addresses of all streams are the same. */
let open: RunningServer;
beforeAll(async () => {
  node = await startNode({ SYNC: 'memory', TRUSTED_PROXIES: '127.0.0.1', ...operator });
  distrustful = await startNode({ SYNC: 'memory', ...operator });
  open = await startNode({ SYNC: 'memory', TRUSTED_PROXIES: '127.0.0.1' });
}, 60_000);

afterAll(() => stopNodes([node, distrustful, open]), 60_000);

interface Found {
  readonly check: string;
  readonly outcome: string;
  readonly message: string;
  readonly fault?: string;
  readonly gateway?: string | null;
  readonly mend?: string;
}

type Report = { readonly code: number; readonly findings: readonly Found[] };

/** Few at a time: the doctor measures delays. */
const atOnceMax = 4;
let atOnce = 0;
const waiting: (() => void)[] = [];

/** Starts the gateway or the proxy for this one visit. */
async function doctorBehind(
  start: () => Promise<Gateway | BadProxy>,
  { idleSeconds = 0, keys = operator }: { idleSeconds?: number; keys?: Environment } = {},
): Promise<Report> {
  if (atOnce >= atOnceMax) await new Promise<void>((resolve) => waiting.push(resolve));
  atOnce++;
  try {
    const proxy = await start();
    try {
      const args = ['doctor', proxy.url, '--idle', String(idleSeconds), '--json'];
      const command = spawnCommand(args, keys);
      const code = await command.waitForExit(60_000);
      const lines = command.stdout().trim().split('\n');
      return { code, findings: lines.map((line) => JSON.parse(line) as Found) };
    } finally {
      await proxy.close();
    }
  } finally {
    atOnce--;
    waiting.shift()?.();
  }
}

function kind(name: string): (typeof gatewayKinds)[number] {
  const found = gatewayKinds.find((each) => each.name === name);
  if (found === undefined) throw new Error(`there is no ${name}`);
  return found;
}

const faulty = ({ findings }: Report): Found[] =>
  findings.filter(({ outcome }) => outcome === 'fail' || outcome === 'warn');

test.concurrent.each(gatewayKinds.map(({ name }) => name))('%s as shipped is well', async (name) => {
  const found = await doctorBehind(() => kind(name).start({ ports: [node.port] }), { idleSeconds: 3 });
  expect(faulty(found).filter(({ check }) => check !== 'origin')).toEqual([]);
  expect(found.code).toBe(0);
});

interface Plant {
  readonly what: string;
  readonly gateway: string;
  readonly edits: Readonly<Record<string, string>>;
  readonly fault: string;
  readonly mend: string;
  readonly idleSeconds?: number;
}

const forwarded = 'proxy_set_header X-Forwarded-For $remote_addr;';
const plants: readonly Plant[] = [
  {
    what: 'buffering',
    gateway: 'caddy',
    edits: { 'flush_interval -1': 'response_buffers 64KiB' },
    fault: 'buffering',
    mend: 'response_buffers',
  },
  {
    what: 'no upgrade',
    gateway: 'nginx',
    edits: { 'proxy_set_header Upgrade $http_upgrade;': '' },
    fault: 'upgrade',
    mend: 'proxy_set_header Upgrade',
  },
  {
    what: 'no upgrade',
    gateway: 'envoy',
    edits: { '                upgrade_configs:\n                  - upgrade_type: websocket\n': '' },
    fault: 'upgrade',
    mend: 'upgrade_configs',
  },
  {
    what: 'an end after a fixed time, of 15 seconds unless it is set',
    gateway: 'envoy',
    edits: { 'timeout: 0s': 'timeout: 2s' },
    fault: 'cut',
    mend: 'timeout: 0s',
    idleSeconds: 5,
  },
  {
    what: 'HTTP/1.0 to nodes',
    gateway: 'nginx',
    edits: { 'proxy_http_version 1.1;': '', 'proxy_set_header Connection $connection_upgrade;': '' },
    fault: 'http10',
    mend: 'proxy_http_version 1.1',
  },
  {
    what: 'HTTP/1.0 to nodes, though upgrades pass',
    gateway: 'nginx',
    edits: { 'proxy_http_version 1.1;': '' },
    fault: 'http10',
    mend: 'proxy_http_version 1.1',
  },
  {
    what: 'a stripped subprotocol',
    gateway: 'nginx',
    edits: { 'proxy_socket_keepalive on;': 'proxy_set_header Sec-WebSocket-Protocol "";' },
    fault: 'subprotocol',
    mend: 'Sec-WebSocket-Protocol',
  },
  {
    what: 'no client address',
    gateway: 'nginx',
    edits: { [forwarded]: 'proxy_set_header X-Forwarded-For "";' },
    fault: 'address',
    mend: forwarded,
  },
  {
    what: 'a client address that the client chooses',
    gateway: 'nginx',
    edits: { [forwarded]: 'proxy_set_header X-Forwarded-For $http_x_forwarded_for;' },
    fault: 'forged',
    mend: forwarded,
  },
  {
    what: 'no option http-no-delay',
    gateway: 'haproxy',
    edits: { '  option http-no-delay\n': '' },
    fault: 'late',
    mend: 'option http-no-delay',
  },
  {
    what: 'a cut of what is idle',
    gateway: 'nginx',
    edits: { 'proxy_read_timeout 75s;': 'proxy_read_timeout 2s;', 'proxy_read_timeout 60s;': 'proxy_read_timeout 2s;' },
    fault: 'idle',
    mend: 'proxy_read_timeout',
    idleSeconds: 5,
  },
  {
    what: 'a cut of what is idle',
    gateway: 'haproxy',
    edits: { 'timeout server 75s': 'timeout server 2s', 'timeout tunnel 75s': 'timeout tunnel 2s' },
    fault: 'idle',
    mend: 'timeout tunnel',
    idleSeconds: 5,
  },
];

describe('finds', () => {
  test.concurrent.each(plants.map((plant) => [plant.gateway, plant.what, plant] as const))(
    'in %s: %s',
    async (name, _what, { edits, fault, mend, idleSeconds = 0 }) => {
      const found = await doctorBehind(() => kind(name).start({ ports: [node.port], edits }), { idleSeconds });
      // It blames nothing else for it.
      expect(new Set(faulty(found).flatMap((each) => each.fault ?? []))).toEqual(new Set([fault]));
      const named = faulty(found).find((each) => each.fault === fault);
      expect(named?.gateway?.toLowerCase()).toBe(name);
      expect(named?.mend).toContain(mend);
    },
  );

  test.concurrent('a node that trusts no proxy', async () => {
    const found = await doctorBehind(() => kind('envoy').start({ ports: [distrustful.port] }));
    const [named] = faulty(found).filter(({ outcome }) => outcome === 'fail');
    expect(named).toMatchObject({
      check: 'address',
      fault: 'address',
      mend: expect.stringContaining('TRUSTED_PROXIES'),
    });
  });

  test.concurrent.each([
    ['a stream from a cache', 'cache', cachingProxy],
    ['compression that keeps events back', 'gzip', gzippingProxy],
    ['answers in HTTP/1.0', 'http10', oldProxy],
  ] as const)('%s', async (_what, fault, startProxy) => {
    const found = await doctorBehind(() => startProxy(open.port), { keys: {} });
    expect(faulty(found).flatMap((each) => each.fault ?? [])).toContain(fault);
    expect(found.code).toBe(1);
  });
});

test('what is no server of ours is said to be none', async () => {
  const other = Bun.serve({ port: 0, hostname: '127.0.0.1', fetch: () => new Response('<h1>Welcome</h1>') });
  const command = spawnCommand(['doctor', other.url.origin, '--json']);
  expect(await command.waitForExit(20_000)).toBe(1);
  expect(command.stderr()).toContain('something else than this server');
  await other.stop(true);
});
