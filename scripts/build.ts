// `bun run build`: makes one executable of the server, the command `sobranie` and all that they need: migrations, pages,
// the API's documentation, the rules that ship. `--postgres` lays the embedded PostgreSQL beside it, which is as large
// again. `--outdir=<folder>` names another folder than `dist`, `--target=<target>` another platform, as Bun calls it.

import { cpSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import swaggerFolder from 'swagger-ui-dist/absolute-path.js';
import { assets as swaggerFiles } from '../src/api/swagger.ts';
import { findPostgresBinaries } from '../src/embedded/binaries.ts';
import { clientScriptFile, makeClientScript } from '../src/pages/client-script.ts';
import { packageFiles, shippedFiles } from '../src/shipped/files.ts';
import { wasmInside } from './wasm-inside.ts';

const root = resolve(import.meta.dir, '..');

function option(name: string): string | undefined {
  const start = `--${name}=`;
  return process.argv.find((arg) => arg.startsWith(start))?.slice(start.length);
}

const outdir = resolve(option('outdir') ?? join(root, 'dist'));
const target = option('target') as Bun.Build.CompileTarget | undefined;
const outfile = join(outdir, 'sobranie');

// Files get the names inside that they have here. A folder keeps the last part of its path alone, so whole trees are taken.
const staging = mkdtempSync(join(tmpdir(), 'sobranie-build-'));
try {
  for (const path of shippedFiles) cpSync(join(root, path), join(staging, path), { recursive: true });
  for (const name of Object.keys(swaggerFiles)) {
    cpSync(join(swaggerFolder(), name), join(staging, packageFiles, name));
  }
  await Bun.write(join(staging, clientScriptFile), await makeClientScript(join(root, 'packages/client/src/index.ts')));
  mkdirSync(outdir, { recursive: true });
  process.chdir(staging);
  const startedAt = performance.now();
  await Bun.build({
    entrypoints: [join(root, 'src/sobranie.ts')],
    target: 'bun',
    plugins: [wasmInside],
    format: 'esm',
    // Reading and compiling the modules was two thirds of the processor time of a start. Another platform compiles itself.
    bytecode: target === undefined,
    // Names stay: the log shows them.
    minify: { whitespace: true, syntax: true },
    // Inside the executable, for stacks that name lines of the source.
    sourcemap: 'linked',
    compile: {
      outfile,
      assets: readdirSync(staging),
      autoloadBunfig: false,
      // Rules may import packages: what these export stands there.
      autoloadPackageJson: true,
      ...(target === undefined ? {} : { target }),
    },
  });
  rmSync(`${outfile}.map`, { force: true });
  console.log(`${outfile} in ${((performance.now() - startedAt) / 1_000).toFixed(1)} s`);
  if (process.argv.includes('--postgres')) {
    const { bin } = findPostgresBinaries();
    const beside = join(outdir, 'postgres');
    rmSync(beside, { recursive: true, force: true });
    cpSync(dirname(dirname(bin)), beside, { recursive: true, verbatimSymlinks: true });
    console.log(`${beside}: the embedded PostgreSQL`);
  }
} finally {
  process.chdir(root);
  rmSync(staging, { recursive: true, force: true });
}
