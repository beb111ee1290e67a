// Real gateways before nodes, with the configurations that deploy/ ships: only addresses, paths and what a test asks for
// are put in other places. Each is one process in the foreground, so that it ends with the tests for certain.

import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { gatewayProgram } from '../../scripts/gateway-programs.ts';
import { endAfterTests, temporaryFolder } from './janitor.ts';
import { startNginx } from './nginx.ts';
import { freePort } from './postgres.ts';
import { until } from './tcp-client.ts';

export interface Gateway {
  readonly url: string;
  close(): Promise<void>;
}

export interface GatewayOptions {
  /** Of the nodes on 127.0.0.1. */
  readonly ports: readonly number[];
  /** Replaces texts in the configuration, each of which must be there. */
  readonly edits?: Readonly<Record<string, string>>;
}

export interface GatewayKind {
  readonly name: string;
  /** Resolves when it leads to a node. */
  readonly start: (options: GatewayOptions) => Promise<Gateway>;
}

/** How a recipe is put where tests need it. */
interface Recipe {
  readonly name: string;
  readonly command: () => readonly string[];
  /** The text that says where it listens, and what takes its place. */
  readonly listen: readonly [from: string, to: (port: number) => string];
  /** One line for each node, found by its first; all of them are replaced. */
  readonly nodes: RegExp;
  readonly node: (port: number, index: number) => string;
}

const recipes: readonly Recipe[] = [
  {
    name: 'haproxy',
    command: () => [Bun.which('haproxy') ?? '/usr/sbin/haproxy', '-db', '-f', 'haproxy.cfg'],
    listen: ['bind :80', (port) => `bind 127.0.0.1:${port}`],
    nodes: /(?: {2}server node\d \S+\n)+/,
    node: (port, index) => `  server node${index} 127.0.0.1:${port}\n`,
  },
  {
    name: 'caddy',
    command: () => [gatewayProgram('caddy'), 'run', '--config', 'Caddyfile'],
    listen: [':80 {', (port) => `:${port} {\n\tbind 127.0.0.1`],
    nodes: /(?: node\d\.internal:3000)+/,
    node: (port) => ` 127.0.0.1:${port}`,
  },
  {
    name: 'traefik',
    command: () => [gatewayProgram('traefik'), '--configFile=traefik.yml'],
    listen: ["address: ':80'", (port) => `address: '127.0.0.1:${port}'`],
    nodes: /(?: {10}- url: \S+\n)+/,
    node: (port) => `          - url: http://127.0.0.1:${port}\n`,
  },
  {
    name: 'envoy',
    command: () => [
      gatewayProgram('envoy'),
      ...['-c', 'envoy.yaml', '--concurrency', '1', '--disable-hot-restart', '--log-level', 'error'],
    ],
    listen: ['address: 0.0.0.0, port_value: 80', (port) => `address: 127.0.0.1, port_value: ${port}`],
    nodes: /(?: {14}- endpoint: .*\n)+/,
    node: (port) =>
      `              - endpoint: { address: { socket_address: { address: 127.0.0.1, port_value: ${port} } } }\n`,
  },
];

export const gatewayKinds: readonly GatewayKind[] = [
  { name: 'nginx', start: startNginx },
  ...recipes.map((recipe) => ({ name: recipe.name, start: (options: GatewayOptions) => start(recipe, options) })),
];

export const shippedFolder = resolve(import.meta.dir, '../../deploy');

async function start(recipe: Recipe, options: GatewayOptions): Promise<Gateway> {
  const port = await freePort();
  const folder = temporaryFolder(recipe.name);
  writeConfiguration(recipe, folder, port, options);
  const log = join(folder, 'log');
  const child = Bun.spawn([...recipe.command()], {
    cwd: folder,
    // Some of them keep things in the home folder.
    env: { PATH: process.env['PATH'], HOME: folder, XDG_DATA_HOME: folder, XDG_CONFIG_HOME: folder },
    stdin: 'ignore',
    stdout: Bun.file(log),
    stderr: Bun.file(log),
  });
  endAfterTests(child);
  const url = `http://127.0.0.1:${port}`;
  let ended = false;
  void child.exited.then(() => (ended = true));
  await until(
    async () => {
      if (ended) throw new Error(`${recipe.name} ended with ${child.exitCode}: ${readFileSync(log, 'utf8')}`);
      // Some of them listen before they know of any node.
      const answer = await fetch(`${url}/health/live`).catch(() => undefined);
      return answer?.status === 200;
    },
    `${recipe.name} leads to a node`,
    20_000,
    20,
  );
  return {
    url,
    async close() {
      child.kill('SIGKILL');
      await child.exited;
    },
  };
}

function writeConfiguration(recipe: Recipe, folder: string, port: number, { ports, edits = {} }: GatewayOptions): void {
  const unused = new Set(Object.keys(edits));
  const places = new Set(['listen', 'nodes']);
  for (const name of readdirSync(join(shippedFolder, recipe.name))) {
    let text = readFileSync(join(shippedFolder, recipe.name, name), 'utf8');
    for (const [from, to] of Object.entries(edits)) {
      if (text.includes(from)) unused.delete(from);
      text = text.replaceAll(from, () => to);
    }
    const [listen, listenHere] = recipe.listen;
    if (text.includes(listen)) places.delete('listen');
    if (recipe.nodes.test(text)) places.delete('nodes');
    text = text.replace(listen, listenHere(port)).replace(recipe.nodes, () => ports.map(recipe.node).join(''));
    writeFileSync(join(folder, name), text);
  }
  const lost = [...unused, ...places];
  if (lost.length > 0) throw new Error(`the configuration of ${recipe.name} has no ${lost.join(', ')}`);
}
