// Writes an app into a folder: the files of `template/`, with a name, with packages, and with secrets of its own.
// Overwrites nothing: the folder must be new or empty, and each file is made as a new one.

import { randomBytes } from 'node:crypto';
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { CreateError } from './create-error.ts';
import { packageFolder, providePackages } from './packages.ts';

export interface CreateOptions {
  /** A folder that holds the archives of the packages @sobranie/*. Default: where packages come from, see packages.ts. */
  readonly archives?: string | undefined;
}

export interface CreatedApp {
  /** As it was given. */
  readonly path: string;
  readonly name: string;
}

const nameLengthMax = 100;

/** An empty folder may hold these. */
const harmless = new Set(['.git', '.DS_Store']);

export async function createApp(path: string, { archives }: CreateOptions): Promise<CreatedApp> {
  if (path === '') throw new CreateError('the folder has no name', 2);
  const folder = resolve(path);
  const name = nameOf(folder);
  await requireEmpty(folder, path);
  const template = join(packageFolder, 'template');
  let made: string | undefined;
  try {
    made = await mkdir(folder, { recursive: true });
    const packages = providePackages(folder, archives);
    for (const file of await templateFiles(template)) {
      const text = await readFile(join(template, file), 'utf8');
      const real = realNames[file] ?? file;
      await writeNew(join(folder, real), real === 'package.json' ? manifest(text, name, packages) : text);
    }
    await writeNew(join(folder, '.env'), secrets(), 0o600);
  } catch (error) {
    // The next attempt must find the folder as this one did.
    if (made !== undefined) await rm(made, { recursive: true, force: true });
    throw plainly(error);
  }
  return { path, name };
}

/** The folder's name is the package's, so it must be one that npm takes. */
function nameOf(folder: string): string {
  const name = basename(folder);
  if (/^[a-z0-9][a-z0-9._-]*$/.test(name) && name.length <= nameLengthMax && name !== 'node_modules') return name;
  throw new CreateError(
    `"${name}" cannot be the name of an app: take small letters, digits, ".", "_" and "-", such as "my-app"`,
    2,
  );
}

async function requireEmpty(folder: string, path: string): Promise<void> {
  let names: string[];
  try {
    names = await readdir(folder);
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return;
    if (codeOf(error) === 'ENOTDIR') throw new CreateError(`${path} is a file, or lies in one`);
    throw plainly(error);
  }
  const there = names.filter((name) => !harmless.has(name));
  if (there.length === 0) return;
  const some = there.toSorted().slice(0, 3).join(', ');
  throw new CreateError(`the folder ${path} is not empty: it holds ${some}${there.length > 3 ? ', …' : ''}`);
}

async function templateFiles(template: string): Promise<string[]> {
  const entries = await readdir(template, { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(template.length + 1))
    .toSorted();
}

/** npm leaves out some files by their names, and tools of this project read others: the template has other names for them. */
const realNames: Readonly<Record<string, string>> = {
  gitignore: '.gitignore',
  'readme.txt': 'README.md',
  'manifest.json': 'package.json',
  'compiler.json': 'tsconfig.json',
};

function manifest(text: string, name: string, packages: Readonly<Record<string, string>>): string {
  const given = JSON.parse(text) as { readonly dependencies: Readonly<Record<string, string>> };
  return `${JSON.stringify({ ...given, name, dependencies: { ...packages, ...given.dependencies } }, null, 2)}\n`;
}

/** Two, for what is signed with one must not pass for what is signed with the other. */
function secrets(): string {
  const secret = (): string => randomBytes(32).toString('base64url');
  return [
    '# Secrets of this copy of the app. They are not for git.',
    '',
    '# Signs the cookie that says who is logged in.',
    `SESSION_SECRET=${secret()}`,
    '',
    '# With a key for tokens, the realtime server lets nobody in without a ticket or a token.',
    `JWT_SECRET=${secret()}`,
    '',
  ].join('\n');
}

async function writeNew(path: string, text: string, mode = 0o644): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, text, { flag: 'wx', mode });
}

function codeOf(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error ? String(error.code) : undefined;
}

/** Of the system's refusals, such as a folder that may not be written; everything else is a fault of this program. */
function plainly(error: unknown): unknown {
  if (error instanceof CreateError || codeOf(error) === undefined) return error;
  return new CreateError(error instanceof Error ? error.message : String(error), 1, error);
}
