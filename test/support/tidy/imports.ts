// The house's floors: which folder may import which, and that no files import each other in a circle.

import { posix } from 'node:path';
import { finding, type Finding } from './finding.ts';
import { isScript, type SourceFile } from './source-files.ts';

/** Imports point downward only; folders of one floor do not know each other. */
export const floors: Readonly<Record<string, number>> = {
  protocol: 0,
  time: 0,
  /** Files that ship with the server. */
  shipped: 0,
  rules: 1,
  database: 1,
  redis: 1,
  nats: 1,
  rabbitmq: 1,
  kafka: 1,
  http: 1,
  core: 2,
  embedded: 3,
  transports: 3,
  changes: 3,
  nodes: 3,
  presence: 3,
  snapshot: 3,
  hooks: 3,
  auth: 3,
  limits: 3,
  metrics: 3,
  pages: 3,
  api: 3,
  /** Around the sync layer's port and the relay's destination. */
  tracing: 4,
  /** Above what it brings stores for: tickets, limits, the relay. */
  sync: 4,
  /** Messages of brokers; it knows no engine. */
  sources: 4,
  settings: 4,
  app: 5,
  workers: 6,
  /** The server inside another program. */
  guest: 6,
  /** The command `sobranie`. */
  cli: 6,
  /** Files that stand in `src/` itself. */
  '': 7,
};

/** Beside the floors: the client is built on the wire alone, and pages are built on the client like anyone's. */
const alsoAllowed: Readonly<Record<string, readonly string[]>> = { client: ['protocol'], pages: ['client'] };

/** Folders whose code also runs in a browser: nothing from Bun, Node or a package. */
const bareFolders = new Set(['protocol', 'time', 'client']);

interface Import {
  readonly position: number;
  readonly specifier: string;
}

const importPattern =
  /\b(?:import|export)\s+(?:type\s)?(?:[\w*${},\s]*?\sfrom\s*)?(['"])([^'"\n]+)\1|\bimport\(\s*(['"])([^'"\n]+)\3/g;

export function importsOf(file: SourceFile): Import[] {
  return Array.from(file.uncommented.matchAll(importPattern), (match) => ({
    position: match.index,
    specifier: match[2] ?? match[4] ?? '',
  }));
}

function resolve(file: SourceFile, specifier: string): string | undefined {
  return specifier.startsWith('.') ? posix.join(posix.dirname(file.path), specifier) : undefined;
}

/** `src/<folder>/…` → folder; nothing for a file in `src/` itself. */
function folderOf(path: string): string | undefined {
  return /^src\/(?:([^/]+)\/)?/.exec(path)?.[1] ?? (path.startsWith('src/') ? '' : undefined);
}

export function importDirection(file: SourceFile): Finding[] {
  if (!file.path.startsWith('src/') || !isScript(file.path)) return [];
  const folder = folderOf(file.path);
  if (folder === undefined || !(folder in floors || folder in alsoAllowed)) {
    return [finding(file, 0, 'stands on no floor of the house')];
  }
  return importsOf(file).flatMap(({ position, specifier }) => {
    const target = resolve(file, specifier);
    const fault = target === undefined ? packageFault(folder, specifier) : targetFault(folder, target);
    return fault === undefined ? [] : [finding(file, position, `${fault}: ${specifier}`)];
  });
}

function packageFault(folder: string, specifier: string): string | undefined {
  // A path of the server that delivers the page.
  if (specifier.startsWith('/')) return undefined;
  if (bareFolders.has(folder)) return `src/${folder} runs in browsers too and imports no package`;
  if (folder === 'core' && /^(node:|bun(:|$))/.test(specifier)) return 'src/core does no input or output';
  return undefined;
}

function targetFault(folder: string, target: string): string | undefined {
  const other = folderOf(target);
  if (other === folder) return undefined;
  if (alsoAllowed[folder]?.includes(other ?? '')) return undefined;
  const [floor, otherFloor] = [floors[folder], floors[other ?? '']];
  if (other === undefined) {
    return (floor ?? 0) >= (floors['app'] ?? 0) ? undefined : `src/${folder} may not import from outside src`;
  }
  if (floor === undefined || otherFloor === undefined) return `src/${folder} may not import src/${other}`;
  if (otherFloor < floor) return undefined;
  return `src/${folder} (floor ${floor}) may not import src/${other} (floor ${otherFloor})`;
}

/** Circles of imports, those of types alone too, each told once, from its first file. */
export function importCycles(files: readonly SourceFile[]): Finding[] {
  const known = new Map(files.filter((file) => isScript(file.path)).map((file) => [file.path, file]));
  const done = new Set<string>();
  const found: Finding[] = [];
  const visit = (file: SourceFile, trail: readonly string[]) => {
    const start = trail.indexOf(file.path);
    if (start !== -1) found.push(`import cycle: ${[...trail.slice(start), file.path].join(' -> ')}`);
    if (start !== -1 || done.has(file.path)) return;
    for (const { specifier } of importsOf(file)) {
      const target = known.get(resolve(file, specifier) ?? '');
      if (target !== undefined) visit(target, [...trail, file.path]);
    }
    done.add(file.path);
  };
  for (const file of known.values()) visit(file, []);
  return found;
}
