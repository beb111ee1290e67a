// An engine is known by its row: nothing else in src/ imports its folder, names it, or asks which one an adapter is.

import { posix } from 'node:path';
import { finding, matches, type Finding, type Rule } from './finding.ts';
import { importsOf } from './imports.ts';
import { isScript } from './source-files.ts';

const rows = 'src/app/engines.ts';

export const enginesByRow: Rule = (file) => {
  if (!file.path.startsWith('src/') || !isScript(file.path) || file.path === rows) return [];
  const folder = /^src\/sync\/([^/]+)\//.exec(file.path)?.[1];
  const imported: Finding[] = importsOf(file).flatMap(({ position, specifier }) => {
    const target = posix.join(posix.dirname(file.path), specifier);
    const engine = /^src\/sync\/([^/]+)\//.exec(target)?.[1];
    const isForeign = engine !== undefined && engine !== folder;
    return isForeign ? [finding(file, position, `only ${rows} knows the folder of an engine: ${specifier}`)] : [];
  });
  const asked = matches(file, 'code', /\binstanceof\s+\w*Adapter\b/g, 'the row of an engine says what it is');
  // `postgres` is also the name of a driver and of programs.
  const named =
    folder === undefined ? matches(file, 'uncommented', /(['"`])(?:redis|memory)\1/g, 'names an engine') : [];
  return [...imported, ...asked, ...named];
};
