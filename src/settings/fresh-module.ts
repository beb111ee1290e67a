// A module that is evaluated again whenever it is loaded, as its file is now, and with it what it imports by path.
// Earlier evaluations are forgotten, so that they are freed once nobody holds what they exported.
//
// Not evaluated again: packages, this server's own modules, and what only has been imported by a computed path.

import { readFileSync, realpathSync } from 'node:fs';
import { dirname, resolve, sep } from 'node:path';

const serverFolder = resolve(import.meta.dir, '..') + sep;

export class FreshModule {
  readonly #path: string;
  /** Queries under which no evaluation is going on. The query is a part of a module's name. */
  readonly #idleQueries = [''];
  #queries = 0;
  /** Names of the modules that the loads so far brought in and that were not forgotten yet. */
  #loaded: ReadonlySet<string> = new Set();

  constructor(path: string) {
    this.#path = path;
  }

  /** The first load takes the module as another one may have loaded it. Rejects as reading and evaluating do. */
  async load(): Promise<unknown> {
    // An evaluation that has not ended cannot be forgotten, and to import its name again would only join it.
    const query = this.#idleQueries.pop() ?? `?load=${++this.#queries}`;
    try {
      // Files that are exchanged by a link to another folder differ in their real path alone.
      const path = realpathSync(this.#path);
      const name = path + query;
      const names = new Set([name, ...modulesOf(path)]);
      if (this.#loaded.size > 0) for (const old of [...this.#loaded, ...names]) forget(old);
      this.#loaded = names;
      return await import(name);
    } finally {
      this.#idleQueries.push(query);
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
