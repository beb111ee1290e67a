// Where the files that ship with the server are: in the checkout, inside the executable that `bun run build` makes, or
// beside a bundle such as the package's. All hold them under the same paths, so the rest of the code does not know which
// of these runs.

import { existsSync } from 'node:fs';
import { join, resolve } from 'node:path';

export const isExecutable: boolean = Bun.isStandaloneExecutable;

// A bundle has them beside itself.
const isBundle = !isExecutable && existsSync(join(import.meta.dir, 'migrations'));

const folder = isExecutable || isBundle ? import.meta.dir : resolve(import.meta.dir, '../..');

/** The place of a file or folder, such as `migrations`, by its path in the checkout. */
export function shippedPath(path: string): string {
  return join(folder, path);
}

/** The runtime imports and reads such a path, but the system knows nothing of it. */
export function isInsideExecutable(path: string): boolean {
  return isExecutable && path.startsWith(folder);
}

/** What the executable takes in beside the code: `scripts/build.ts` copies them, a folder with all it holds. */
export const shippedFiles = ['migrations', 'src/pages', 'realtime.config.ts'] as const;

/** The files of a package that a page needs. They are no part of the checkout, so the executable has a folder for them. */
export const packageFiles = 'package-files';
