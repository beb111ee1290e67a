// What would be published: builds as it should, is read by every kind of resolver that takes ES modules, and stays small.
// Sizes are those of what a page loads first, minified by Bun and gzipped; parts that few pages need are loaded later.

import { beforeAll, expect, test } from 'bun:test';
import { mkdirSync, readdirSync, realpathSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { temporaryFolder } from '../support/janitor.ts';
import { patient } from '../support/patience.ts';
import { createDatabase } from '../support/postgres.ts';

patient();

const root = join(import.meta.dir, '../..');
const packages = ['client', 'react', 'tanstack-db', 'server'];
const bytesMax = { core: 8_000, react: 2_000 };

async function run(command: readonly string[], cwd = root): Promise<string> {
  const child = Bun.spawn([...command], { cwd, stdin: 'ignore', stdout: 'pipe', stderr: 'pipe' });
  const [out, errors, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  if (code !== 0) throw new Error(`${command.join(' ')} ended with ${code}:\n${out}${errors}`);
  return out;
}

beforeAll(async () => {
  await run([process.execPath, 'scripts/build-packages.ts']);
}, 60_000);

test.concurrent.each(packages)('%s is published as it should be', async (name) => {
  const folder = temporaryFolder('pack');
  await run([process.execPath, 'pm', 'pack', '--destination', folder], join(root, 'packages', name));
  const [file = ''] = readdirSync(folder);
  const tarball = join(folder, file);
  const tools = join(root, 'node_modules/.bin');
  await run(['node', join(tools, 'publint'), 'run', tarball, '--strict']);
  await run(['node', join(tools, 'attw'), tarball, '--profile', 'esm-only']);
});

test('the server in the package for backends runs where it is installed, with the framework alone beside it', async () => {
  const folder = temporaryFolder('install');
  const installed = join(folder, 'node_modules/@sobranie/server');
  await run([process.execPath, 'pm', 'pack', '--destination', folder], join(root, 'packages/server'));
  const [file = ''] = readdirSync(folder).filter((name) => name.endsWith('.tgz'));
  mkdirSync(installed, { recursive: true });
  await run(['tar', '-xzf', join(folder, file), '--strip-components=1', '-C', installed]);
  symlinkSync(realpathSync(join(root, 'node_modules/elysia')), join(folder, 'node_modules/elysia'));
  const script = `
    import { Elysia } from 'elysia';
    import { realtime } from '@sobranie/server/elysia';
    import { startTestServer } from '@sobranie/server/testing';
    const settings = { DATABASE_URL: process.argv[2], LOG_LEVEL: 'silent', DRAIN_WINDOW: '0', SHUTDOWN_TIMEOUT: '0' };
    const app = new Elysia().use(realtime({ settings })).listen(0);
    const { offset } = await app.decorator.realtime.publish('news', 1);
    await app.stop(true);
    await using server = await startTestServer();
    console.log(offset, (await server.publish('news', 1)).offset);
  `;
  await Bun.write(join(folder, 'app.ts'), script);
  // An empty database: the migrations are in the package.
  const database = await createDatabase();
  try {
    expect(await run([process.execPath, join(folder, 'app.ts'), database.url], folder)).toBe('1 1\n');
  } finally {
    await database.drop();
  }
});

/** Bytes of what is loaded at once by a page that imports this. */
async function sizeOf(source: string): Promise<number> {
  const folder = temporaryFolder('size');
  await Bun.write(join(folder, 'entry.ts'), source);
  const { outputs, logs } = await Bun.build({
    entrypoints: [join(folder, 'entry.ts')],
    minify: true,
    splitting: true,
    external: ['react'],
    // The packages name each other, and here each is its built form.
    plugins: [
      {
        name: 'built packages',
        setup(build) {
          build.onResolve({ filter: /^@sobranie\// }, ({ path }) => ({
            path: join(root, 'packages', path.slice('@sobranie/'.length), 'dist/index.js'),
          }));
        },
      },
    ],
  });
  const entry = outputs.find(({ kind }) => kind === 'entry-point');
  if (entry === undefined) throw new Error(logs.map(String).join('\n'));
  let bytes = 0;
  for (const output of outputs) {
    // Chunks that the entry imports at once count, those that it imports on demand do not.
    const name = output.path.slice(output.path.lastIndexOf('/') + 1);
    const isFirst = output === entry || new RegExp(`from\\s*"[^"]*${name}"`).test(await entry.text());
    if (isFirst) bytes += Bun.gzipSync(new Uint8Array(await output.arrayBuffer()), { level: 9 }).length;
  }
  return bytes;
}

const core = "export { Sobranie, SobranieError } from '@sobranie/client';";

test(`the client takes at most ${bytesMax.core} bytes`, async () => {
  const bytes = await sizeOf(core);
  expect(bytes).toBeGreaterThan(4_000);
  expect(bytes).toBeLessThanOrEqual(bytesMax.core);
});

test(`React, with live tables, takes at most ${bytesMax.react} bytes more`, async () => {
  const more = (await sizeOf(`${core} export * from '@sobranie/react';`)) - (await sizeOf(core));
  expect(more).toBeGreaterThan(500);
  expect(more).toBeLessThanOrEqual(bytesMax.react);
});
