// Who is measured against whom: our server in its modes and the baselines, each with the address to connect to and the
// frames that it understands. Starting is the caller's choice, because the memory bench wants a fresh process per run.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { BenchError, freePort, repositoryRoot, startServer, type ServerProcess } from './server-process.ts';

export interface Contender {
  readonly name: string;
  readonly transport: 'websocket' | 'events';
  readonly path: string;
  readonly channel: string;
  readonly publishPath: string;
  // Text in the frame or event that tells a subscriber is live.
  readonly ready: string;
  // What a connection says first, the publisher's included, where it is not our `subscribe`.
  readonly hello?: string;
  // The frame that publishes, where it is not ours.
  readonly publishFrame?: (data: object) => string;
  readonly server: ServerSource;
}

// Contenders with the same source share one process.
export interface ServerSource {
  readonly name: string;
  start(): Promise<ServerProcess>;
}

const baseline = (file: string): string => join(repositoryRoot, 'bench/baselines', file);

function bunServer(name: string, file: string, ...rest: string[]): ServerSource {
  return { name, start: () => startServer([process.execPath, baseline(file), ...rest]) };
}

// The limits that protect a public server are out of the way; everything else is as shipped. `root` is the checkout.
export async function startOurs(
  env: Record<string, string>,
  { flags = [], root = repositoryRoot }: { readonly flags?: readonly string[]; readonly root?: string } = {},
): Promise<ServerProcess> {
  const directory = await mkdtemp(join(tmpdir(), 'sobranie-bench-'));
  const command = [process.execPath, ...flags, await entryOf(root)];
  const settings = {
    HOST: '127.0.0.1',
    PORT: String(await freePort()),
    NODE_ENV: 'production',
    ALLOW_ANONYMOUS: 'true',
    DATA_DIR: directory,
    LOG_LEVEL: 'info',
    BROADCAST_INTERVAL: '0',
    SHUTDOWN_TIMEOUT: '1',
    RATE_LIMIT_PER_MINUTE: '1000000000',
    SUBSCRIBES_PER_MINUTE: '0',
    MAX_CONNECTIONS: '40000',
    ...env,
  };
  const server = await startServer(command, settings, root).catch(async (error: unknown) => {
    await rm(directory, { recursive: true, force: true });
    throw error;
  });
  return {
    ...server,
    stop: async () => {
      await server.stop();
      await rm(directory, { recursive: true, force: true });
    },
  };
}

// What its `start` script runs: `bun src/main.ts`.
async function entryOf(root: string): Promise<string> {
  const file = Bun.file(join(root, 'package.json'));
  const { scripts } = (await file.json()) as { readonly scripts: { readonly start: string } };
  return scripts.start.split(' ').at(-1) ?? '';
}

function inMemory(name: string, root: string): ServerSource {
  return { name, start: () => startOurs({ SYNC: 'memory', ROLE: 'ws,sse,api' }, { root }) };
}

export const oursInMemory: ServerSource = inMemory('sobranie', repositoryRoot);

// The server of another checkout, in the place of ours.
export function otherOf(contender: Contender, root: string): Contender {
  return { ...contender, name: `${contender.name}, of the other checkout`, server: inMemory('the other', root) };
}
const wsPackage: ServerSource = {
  name: 'ws package',
  start: () => {
    const node = Bun.which('node');
    if (!node) throw new BenchError('the ws package is measured on Node: `node` is not on the PATH');
    return startServer([node, baseline('ws-package.mjs')]);
  },
};

function overWebSocket(name: string, server: ServerSource, channel: string): Contender {
  const path = '/realtime/ws';
  return {
    name,
    server,
    channel,
    transport: 'websocket',
    path,
    publishPath: path,
    ready: '"type":"subscribed"',
  };
}

function overEvents(name: string, server: ServerSource, channel: string): Contender {
  const path = `/realtime/events?channels=${channel}`;
  return {
    name,
    server,
    channel,
    transport: 'events',
    path,
    publishPath: '/realtime/ws',
    ready: 'event: welcome',
  };
}

export const bareWebSocket = overWebSocket(
  'Bun, native topic',
  bunServer('bare', 'bare-websocket.ts'),
  'ephemeral:bench',
);
export const wsLoop = overWebSocket('ws package on Node, loop of send', wsPackage, 'ephemeral:bench');
export const oursEphemeral = overWebSocket('sobranie, ephemeral', oursInMemory, 'ephemeral:bench');
export const oursRecoverable = overWebSocket('sobranie, recoverable', oursInMemory, 'bench');

export const eventsJoined = overEvents(
  'Bun, one enqueue per tick and stream',
  bunServer('joined', 'event-streams.ts', 'joined'),
  'ephemeral:bench',
);
export const eventsEach = overEvents(
  'Bun, one enqueue per message and stream',
  bunServer('each', 'event-streams.ts', 'each'),
  'ephemeral:bench',
);
export const oursEventsEphemeral = overEvents('sobranie, ephemeral', oursInMemory, 'ephemeral:bench');
export const oursEventsRecoverable = overEvents('sobranie, recoverable', oursInMemory, 'bench');

// On nodes that the bench starts in pairs.
const onePair: ServerSource = {
  name: 'sobranie',
  start: () => Promise.reject(new BenchError('a node of a pair is not started alone')),
};
export const onNodes: readonly Contender[] = [
  overWebSocket('sobranie, ephemeral', onePair, 'ephemeral:bench'),
  overWebSocket('sobranie, recoverable', onePair, 'bench'),
];
