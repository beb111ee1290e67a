// A real nginx before nodes, with the configuration that deploy/nginx/ ships: only addresses, paths and what a test
// asks for are put in other places. One process in the foreground, so that it ends with the tests for certain.

import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { endAfterTests, temporaryFolder } from './janitor.ts';
import { freePort } from './postgres.ts';
import { TcpClient, until } from './tcp-client.ts';

export interface Nginx {
  readonly url: string;
  /** What it wrote to its error log. */
  errors(): string;
  /** What it wrote to its access log. */
  accesses(): string;
  close(): Promise<void>;
}

export interface NginxOptions {
  /** Of the nodes on 127.0.0.1. */
  readonly ports: readonly number[];
  /** Nodes of one role each, for `upstream-roles.conf`: by the names that stand there. */
  readonly roles?: Readonly<Record<string, readonly number[]>>;
  /** The file that takes the place of `upstream.conf`. */
  readonly upstream?: string;
  /** Replaces texts in the configuration, each of which must be there. */
  readonly edits?: Readonly<Record<string, string>>;
}

const shipped = resolve(import.meta.dir, '../../deploy/nginx');

/** Resolves when it accepts connections. */
export async function startNginx(options: NginxOptions): Promise<Nginx> {
  const port = await freePort();
  const folder = temporaryFolder('nginx');
  writeConfiguration(folder, port, options);
  const child = Bun.spawn(
    [nginxProgram(), '-p', folder, '-c', 'nginx.conf', '-e', 'error.log', '-g', globals(folder)],
    { stdin: 'ignore', stdout: 'ignore', stderr: 'ignore' },
  );
  endAfterTests(child);
  const errors = (): string => readFileSync(join(folder, 'error.log'), 'utf8');
  const url = `http://127.0.0.1:${port}`;
  let ended = false;
  void child.exited.then(() => (ended = true));
  await until(
    async () => {
      if (ended) throw new Error(`nginx ended with ${child.exitCode}: ${errors()}`);
      const tcp = await TcpClient.connect(url).catch(() => undefined);
      tcp?.cut();
      return tcp !== undefined;
    },
    'nginx listens',
    10_000,
  );
  return {
    url,
    errors,
    accesses: () => readFileSync(join(folder, 'access.log'), 'utf8'),
    async close() {
      child.kill('SIGTERM');
      await child.exited;
    },
  };
}

function nginxProgram(): string {
  return Bun.which('nginx') ?? '/usr/sbin/nginx';
}

function globals(folder: string): string {
  // Root's own folder is closed to the account that nginx would choose.
  const user = process.getuid?.() === 0 ? 'user root; ' : '';
  return `${user}daemon off; master_process off; pid ${join(folder, 'nginx.pid')};`;
}

function writeConfiguration(folder: string, port: number, options: NginxOptions): void {
  const { ports, roles = {}, upstream = 'upstream.conf', edits = {} } = options;
  const texts = new Map(readdirSync(shipped).map((name) => [name, readFileSync(join(shipped, name), 'utf8')]));
  const lines = /(?: {2}server ([a-z]+)\d\.internal:3000( [^\n]*\n))+/g;
  const balancing = (texts.get(upstream) ?? '').replace(lines, (_all, role: string, rest: string) =>
    (roles[role] ?? ports).map((each) => `  server 127.0.0.1:${each}${rest}`).join(''),
  );
  const paths = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((kind) => `  ${kind}_temp_path ${kind};\n`);
  const main = (texts.get('nginx.conf') ?? '')
    .replace('http {\n', `http {\n${paths.join('')}`)
    .replace('/var/log/nginx/sobranie.log', join(folder, 'access.log'))
    .replace('listen 80;', `listen 127.0.0.1:${port};`);
  const written = { 'nginx.conf': main, 'upstream.conf': balancing, 'proxy.conf': texts.get('proxy.conf') ?? '' };
  const all = Object.values(written).join('');
  for (const from of Object.keys(edits)) if (!all.includes(from)) throw new Error(`the configuration has no ${from}`);
  for (const [name, text] of Object.entries(written)) {
    const edited = Object.entries(edits).reduce((now, [from, to]) => now.replaceAll(from, () => to), text);
    writeFileSync(join(folder, name), edited);
  }
}
