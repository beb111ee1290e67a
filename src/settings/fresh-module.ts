// A module that is evaluated again at each load, as its file is then, together with the files that it imports by path.
// Earlier evaluations are removed from the runtime's cache, so that they are freed when nobody uses their exports.
//
// Not evaluated again: packages, this server's own modules, and files that are imported by a computed path.

import { readFileSync, realpathSync } from 'node:fs';
import { dirname, resolve, sep } from 'node:path';
import { isInsideExecutable } from '../shipped/files.ts';

const serverFolder = resolve(import.meta.dir, '..') + sep;

export class FreshModule {
  readonly #path: string;
  #loads = 0;
  /** Names of the modules of the last load. */
  #loaded: ReadonlySet<string> = new Set();

  constructor(path: string) {
    this.#path = path;
  }

  /** The first load may answer what someone else in this process has loaded. Rejects as reading and evaluating do. */
  async load(): Promise<unknown> {
    // Where a link leads to another folder now, only the real path of the file has changed.
    const path = isInsideExecutable(this.#path) ? this.#path : realpathSync(this.#path);
    // The query is a part of a module's name. An evaluation that has not ended cannot be forgotten, and importing its
    // name again would only join it.
    const name = this.#loads++ === 0 ? path : `${path}?load=${this.#loads}`;
    const names = new Set([name, ...modulesOf(path)]);
    for (const old of this.#loaded) forget(old);
    this.#loaded = names;
    try {
      return await import(name);
    } finally {
      // A later load came in between, when this one could not be forgotten yet.
      if (this.#loaded !== names) forget(name);
    }
  }
}

function forget(name: string): void {
  Reflect.deleteProperty(require.cache, name);
}

/** The file and all that it imports by path, directly or through others. */
function modulesOf(path: string, found = new Set<string>()): ReadonlySet<string> {
  if (found.has(path) || path.startsWith(serverFolder)) return found;
  found.add(path);
  for (const imported of importsOf(path)) modulesOf(imported, found);
  return found;
}

function importsOf(path: string): readonly string[] {
  if (!/\.[cm]?[jt]sx?$/.test(path)) return [];
  try {
    const transpiler = new Bun.Transpiler({ loader: path.endsWith('x') ? 'tsx' : 'ts' });
    const specifiers = transpiler.scanImports(readFileSync(path, 'utf8')).map((found) => found.path);
    const byPath = specifiers.filter((specifier) => /^[./]/.test(specifier));
    return byPath.map((specifier) => realpathSync(Bun.resolveSync(specifier, dirname(path))));
  } catch {
    // The evaluation says what is wrong with the file.
    return [];
  }
}
