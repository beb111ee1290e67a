// Brings what the project needs onto a bare machine: its dependencies, and Debian packages that tests use.

import { existsSync, rmSync, writeFileSync } from 'node:fs';
import { installGateways } from './gateway-programs.ts';
import { installKafka } from './kafka-program.ts';
import { installDeno } from './deno-program.ts';
import { installNats } from './nats-program.ts';
import { runToEnd } from './run-to-end.ts';

/** Installs exactly what the lockfile says. Ends this process when that fails: nothing would work after it. */
export async function installDependencies(): Promise<void> {
  const code = await runToEnd([process.execPath, 'install', '--frozen-lockfile'], { limitSeconds: 300 });
  if (code === 0) return;
  console.error('The dependencies could not be installed (see above). With a network, run: bun install');
  process.exit(code);
}

interface DebianPackage {
  readonly name: string;
  /** The package is there when one of these is on the PATH. */
  readonly commands: readonly string[];
  /** Only the tests that take minutes use it. */
  readonly long?: boolean;
}

const debianPackages: readonly DebianPackage[] = [
  // Most tests take the lighter one. Tabs of one visitor need the other.
  { name: 'chromium-headless-shell', commands: ['chromium-headless-shell'] },
  { name: 'chromium', commands: ['chromium', 'chromium-browser', 'google-chrome'] },
  { name: 'redis-server', commands: ['redis-server'] },
  { name: 'postgresql-client', commands: ['psql'] },
  { name: 'pgbouncer', commands: ['pgbouncer', '/usr/sbin/pgbouncer'] },
  { name: 'nginx', commands: ['nginx', '/usr/sbin/nginx'] },
  { name: 'haproxy', commands: ['haproxy', '/usr/sbin/haproxy'] },
  { name: 'prometheus', commands: ['promtool'] },
  { name: 'prometheus-alertmanager', commands: ['prometheus-alertmanager'] },
  { name: 'rabbitmq-server', commands: ['/usr/lib/rabbitmq/bin/rabbitmq-server'] },
  // Kafka's jars come with it, and Java comes with it too.
  { name: 'maven', commands: ['mvn'] },
  { name: 'systemd', commands: ['systemd-analyze'] },
  { name: 'python3', commands: ['python3'] },
  { name: 'php-cli', commands: ['php'] },
  { name: 'buildah', commands: ['buildah'], long: true },
];

/**
 * Installs the Debian packages that some file under test/ names and this machine lacks, and the programs that are none;
 * says what it cannot do.
 */
export async function installTestPackages(long: boolean): Promise<void> {
  const debian = installTestDebianPackages(long);
  // With Python they are brought meanwhile. A Debian package brings the Maven that brings Kafka.
  const python = Bun.which('python3') === null ? debian : Promise.resolve();
  const others = [installGateways, installNats, installDeno].map((install) => python.then(install));
  for (const missing of await Promise.all([debian.then(installKafka), ...others])) {
    if (missing !== undefined) console.error(missing);
  }
}

async function installTestDebianPackages(long: boolean): Promise<void> {
  const missing = (await packagesOfTests()).filter((wish) => !isInstalled(wish.package));
  const wanted = missing.filter((wish) => long || wish.package.long !== true);
  if (wanted.length === 0) return;
  const names = wanted.map((wish) => wish.package.name);
  if (process.getuid?.() === 0 && Bun.which('apt-get') !== null) await installDebian(names);
  for (const { package: missing, file } of wanted.filter((wish) => !isInstalled(wish.package))) {
    console.error(`${missing.name} is missing: tests such as ${file} will fail. Install it, on Debian as root:`);
    console.error(`  apt-get update && apt-get install -y --no-install-recommends ${missing.name}`);
  }
}

function isInstalled({ commands }: DebianPackage): boolean {
  return commands.some((command) => Bun.which(command) !== null || existsSync(command));
}

async function packagesOfTests(): Promise<{ readonly package: DebianPackage; readonly file: string }[]> {
  const found = new Map<DebianPackage, string>();
  const root = new URL('..', import.meta.url).pathname;
  for await (const file of new Bun.Glob('test/**/*.ts').scan({ cwd: root })) {
    const text = await Bun.file(`${root}${file}`).text();
    for (const each of debianPackages) if (text.includes(each.name) && !found.has(each)) found.set(each, file);
  }
  return Array.from(found, ([each, file]) => ({ package: each, file }));
}

async function installDebian(names: readonly string[]): Promise<void> {
  console.error(`Installing ${names.join(', ')} with apt-get`);
  const options = { env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }, limitSeconds: 300 };
  const forbidden = forbidServices();
  try {
    // Another installation at the same time is waited for.
    const patient = ['-qq', '-o', 'DPkg::Lock::Timeout=240'];
    const updated = await runToEnd(['apt-get', 'update', ...patient], options);
    if (updated !== 0) console.error('apt-get update failed; trying with the lists that are there');
    await runToEnd(['apt-get', 'install', '-y', ...patient, '--no-install-recommends', ...names], options);
  } finally {
    forbidden.end();
  }
}

/** Packages of servers start them on their standard ports unless Debian's policy file says no. */
function forbidServices(): { end: () => void } {
  const policy = '/usr/sbin/policy-rc.d';
  if (existsSync(policy)) return { end: () => undefined };
  writeFileSync(policy, '#!/bin/sh\nexit 101\n', { mode: 0o755 });
  return {
    end: () => {
      rmSync(policy, { force: true });
    },
  };
}
