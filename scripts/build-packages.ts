// `bun run build:packages`: makes what is published of each package under packages/, into its `dist`: ES modules that
// bundlers minify themselves, and declarations. A package's own imports are inside; other packages are not.

import { mkdirSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { runToEnd } from './run-to-end.ts';

const root = new URL('..', import.meta.url).pathname;

/** The client first: the others are built on it. */
const packages = ['client', 'react', 'tanstack-db', 'server'];

export async function buildPackages(): Promise<void> {
  for (const name of packages) rmSync(join(root, 'packages', name, 'dist'), { recursive: true, force: true });
  const declarations = join(root, 'packages/.declarations');
  const code = await runToEnd([
    join(root, 'node_modules/.bin/tsc'),
    ...[
      '-p',
      join(root, 'packages'),
      '--noEmit',
      'false',
      '--emitDeclarationOnly',
      '--outDir',
      declarations,
      '--rootDir',
      root,
    ],
  ]);
  if (code !== 0) throw new Error('the declarations could not be made');
  for (const name of packages) await buildPackage(name, join(declarations, 'packages', name, 'src'));
  rmSync(declarations, { recursive: true, force: true });
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
    // The path mapping of this project would take the client's source in.
    external: ['@sobranie/*', 'react', '@tanstack/*'],
  });
  if (!success) throw new Error(`${name} could not be built: ${logs.map(String).join('\n')}`);
  mkdirSync(dist, { recursive: true });
  for (const file of readdirSync(declarations)) {
    if (!file.endsWith('.d.ts')) continue;
    const text = await Bun.file(join(declarations, file)).text();
    // Declarations name each other as modules do when they run.
    await Bun.write(join(dist, file), text.replace(/(from '\.\/[^']+)\.ts'/g, "$1.js'"));
  }
}

if (import.meta.main) await buildPackages();
