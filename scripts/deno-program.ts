// The Deno that tests run the client and the package for backends in. It comes whole inside a package of PyPI, and is kept
// in the user's cache.

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { cacheFolder, installPrograms } from './pypi-programs.ts';

const version = '2.9.8';
const folder = (): string => cacheFolder(`deno-${version}`);

/** Where the program is; undefined where `scripts/install.ts` could not put it there. */
export function denoProgram(): string | undefined {
  const path = join(folder(), 'bin/deno');
  return existsSync(path) ? path : undefined;
}

/** For the names of tests that need it: why they do not run, where they do not. */
export function withoutDeno(): string {
  return denoProgram() === undefined ? ', skipped: Deno could not be installed' : '';
}

/** Does nothing when it is there. Resolves with what is missing and how to get it; undefined when all is well. */
export async function installDeno(): Promise<string | undefined> {
  const missing = await installPrograms(folder(), [`deno==${version}`], 'Deno');
  return missing?.replace('will fail', 'are skipped');
}
