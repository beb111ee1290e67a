// Where an app's packages @sobranie/* come from; here alone this is decided.
//
//   published       from the registry, at the version of this package
//   in a checkout   from archives, which are made from the checkout and lie in the app's folder `vendor`

import { spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { CreateError } from './create-error.ts';

const names = ['client', 'react', 'server'];
const bunVersion = '1.4.5';

/** The folder of this package, from `src` and from `dist` alike. */
export const packageFolder = dirname(dirname(fileURLToPath(import.meta.url)));

export const { version } = JSON.parse(readFileSync(join(packageFolder, 'package.json'), 'utf8')) as { version: string };

const checkout = join(packageFolder, '../..');
const builder = join(checkout, 'scripts/build-packages.ts');

/** What an app in this folder depends on, by name: versions, or archives that are put into the folder. */
export function providePackages(folder: string, archives?: string): Record<string, string> {
  const isPublished = !existsSync(builder);
  if (archives === undefined && isPublished) {
    return Object.fromEntries(names.map((name) => [`@sobranie/${name}`, version]));
  }
  const vendor = join(folder, 'vendor');
  mkdirSync(vendor);
  if (archives === undefined) buildInto(vendor);
  else copyArchives(archives, vendor);
  return Object.fromEntries(names.map((name) => [`@sobranie/${name}`, `file:vendor/${archiveOf(name)}`]));
}

function archiveOf(name: string): string {
  return `sobranie-${name}-${version}.tgz`;
}

function copyArchives(archives: string, vendor: string): void {
  const there = new Set(existsSync(archives) ? readdirSync(archives) : []);
  const missing = names.map(archiveOf).filter((file) => !there.has(file));
  if (missing.length > 0) throw new CreateError(`${archives} lacks ${missing.join(', ')}`);
  for (const file of names.map(archiveOf)) copyFileSync(join(archives, file), join(vendor, file));
}

function buildInto(vendor: string): void {
  process.stdout.write('Building the packages from this checkout …\n');
  const archives = mkdtempSync(join(tmpdir(), 'create-sobranie-'));
  try {
    const bun = process.versions['bun'] === undefined ? bunCommand() : { program: process.execPath, args: [] };
    const { program, args } = bun;
    const { status, stdout, stderr, error } = spawnSync(program, [...args, builder, '--pack', archives], {
      encoding: 'utf8',
    });
    if (status !== 0) {
      const reason = error?.message ?? `${stdout}${stderr}`.trim();
      throw new CreateError(`the packages could not be built; were the checkout's dependencies installed?\n${reason}`);
    }
    copyArchives(archives, vendor);
  } finally {
    rmSync(archives, { recursive: true, force: true });
  }
}

/** The checkout is built by Bun, whoever runs this. */
function bunCommand(): { readonly program: string; readonly args: readonly string[] } {
  // Null where there is no such program.
  const { stdout } = spawnSync('bun', ['--version'], { encoding: 'utf8' }) as { stdout: string | null };
  if (stdout?.trim() === bunVersion) return { program: 'bun', args: [] };
  return { program: 'npx', args: ['-y', `bun@${bunVersion}`] };
}
