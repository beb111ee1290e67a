// The image of the Dockerfile, built by buildah with images of this machine's own files in the place of those that a registry
// would give: one with Bun and a shell to build in, one with the C library alone. Needs root; no daemon, no registry.

import { cpSync, chmodSync, existsSync, mkdirSync, symlinkSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { temporaryFolder } from './janitor.ts';
import { spawnProgram, type Environment, type RunningProcess } from './process.ts';

/** What the image says of how it is to be run. */
export interface ImageConfig {
  readonly User: string;
  readonly Env: readonly string[];
  readonly Entrypoint: readonly string[];
  readonly Cmd: readonly string[];
  readonly WorkingDir: string;
  readonly StopSignal: string;
  readonly Healthcheck: { readonly Test: readonly string[] };
}

export interface Image {
  readonly config: ImageConfig;
  /** Runs a command in a container of the image, with its user, folder and variables, in this machine's network. */
  run(command: readonly string[], environment?: Environment): RunningProcess;
}

const certificates = '/etc/ssl/certs/ca-certificates.crt';

export async function buildImage(context: string): Promise<Image> {
  const folder = temporaryFolder('images');
  const storage = ['--root', join(folder, 'root'), '--runroot', join(folder, 'run'), '--storage-driver', 'vfs'];
  const buildah = (...args: string[]): Promise<string> => output(['buildah', ...storage, ...args]);
  const imageOf = async (name: string, programs: Readonly<Record<string, string>>): Promise<void> => {
    const container = await buildah('from', 'scratch');
    await buildah('copy', '--quiet', container, await filesOf(programs));
    await buildah('config', '--env', 'PATH=/usr/bin', '--env', `NODE_EXTRA_CA_CERTS=${certificates}`, container);
    await buildah('commit', '--quiet', container, name);
  };
  await imageOf('localhost/builder', { bun: process.execPath, sh: '/bin/sh' });
  await imageOf('localhost/base', {});
  const bases = ['--build-arg', 'BUILDER=localhost/builder', '--build-arg', 'BASE=localhost/base'];
  // The other format has no health checks.
  const how = ['--format', 'docker', '--isolation', 'chroot', '--network', 'host'];
  await buildah('bud', ...how, ...bases, '--tag', 'localhost/sobranie', context);
  const container = await buildah('from', 'localhost/sobranie');
  const inspected = JSON.parse(await buildah('inspect', '--type', 'image', 'localhost/sobranie')) as {
    Docker: { config: ImageConfig };
  };
  const { config } = inspected.Docker;
  const root = await buildah('mount', container);
  return { config, run: (command, environment = {}) => run(root, config, command, environment) };
}

/** The programs, and all libraries that they and Bun load. */
async function filesOf(programs: Readonly<Record<string, string>>): Promise<string> {
  const folder = temporaryFolder('files');
  chmodSync(folder, 0o755);
  for (const name of ['bin', 'lib', 'lib64']) {
    mkdirSync(join(folder, 'usr', name), { recursive: true });
    symlinkSync(`usr/${name}`, join(folder, name));
  }
  for (const name of ['proc', 'dev', 'tmp']) mkdirSync(join(folder, name));
  chmodSync(join(folder, 'tmp'), 0o1777);
  const copy = (from: string, to = from): void => {
    mkdirSync(dirname(join(folder, to)), { recursive: true });
    cpSync(from, join(folder, to), { dereference: true });
  };
  for (const [name, path] of Object.entries(programs)) copy(path, `/usr/bin/${name}`);
  for (const program of [process.execPath, ...Object.values(programs)]) {
    for (const [library] of (await output(['ldd', program])).matchAll(/\/lib\S+/g)) copy(library);
  }
  if (existsSync(certificates)) copy(certificates);
  return folder;
}

/** As a container: a /proc and a /dev, the image's folder and user. */
function run(root: string, config: ImageConfig, command: readonly string[], environment: Environment): RunningProcess {
  const [user = '', group = ''] = config.User.split(':');
  const script = `mount -t proc proc "$0/proc" && mount --bind /dev "$0/dev" && exec unshare --root="$0" "$@"`;
  const within = [`--wd=${config.WorkingDir}`, `--setgid=${group}`, `--setuid=${user}`, '--', ...command];
  const given = Object.fromEntries(config.Env.map((line) => line.split(/=(.*)/s, 2) as [string, string]));
  const line = ['unshare', '--mount', 'sh', '-c', script, root, ...within];
  // The programs around the container's own are found by the path of this machine.
  const { PATH: _path, ...variables } = given;
  return spawnProgram(line, { DATA_DIR: undefined, ...variables, ...environment }, '/');
}

async function output(command: readonly string[]): Promise<string> {
  const child = Bun.spawn([...command], { stdin: 'ignore', stdout: 'pipe', stderr: 'pipe' });
  const [out, errors] = await Promise.all([child.stdout.text(), child.stderr.text()]);
  if ((await child.exited) !== 0) throw new Error(`${command.join(' ')}: ${errors}${out}`);
  return out.trim();
}
