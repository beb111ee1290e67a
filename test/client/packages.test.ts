// What would be published: builds as it should, is read by every kind of resolver that takes ES modules, and stays small.
// Sizes are those of what a page loads first, minified by Bun and gzipped; parts that few pages need are loaded later.

import { beforeAll, describe, expect, test } from 'bun:test';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { launchBrowser } from '../support/browser.ts';
import { temporaryFolder } from '../support/janitor.ts';
import { patient } from '../support/patience.ts';
import { createDatabase, freePort } from '../support/postgres.ts';
import { spawnProgram } from '../support/process.ts';

patient();

const root = join(import.meta.dir, '../..');
const packages = ['client', 'react', 'tanstack-db', 'server'];
const version = '0.1.0';
let archives: string;
const bytesMax = { core: 8_000, react: 2_000 };

async function run(command: readonly string[], cwd = root): Promise<string> {
  const child = Bun.spawn([...command], { cwd, stdin: 'ignore', stdout: 'pipe', stderr: 'pipe' });
  const [out, errors, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  if (code !== 0) throw new Error(`${command.join(' ')} ended with ${code}:\n${out}${errors}`);
  return out;
}

beforeAll(async () => {
  archives = temporaryFolder('archives');
  await run([process.execPath, 'scripts/build-packages.ts', '--pack', archives]);
}, 240_000);

const archiveOf = (name: string): string => join(archives, `sobranie-${name}-${version}.tgz`);

async function unpack(archive: string, folder: string): Promise<void> {
  mkdirSync(folder, { recursive: true });
  await run(['tar', '-xzf', archive, '--strip-components=1', '-C', folder]);
}

test.concurrent.each(packages)(
  '%s is published as it should be',
  async (name) => {
    const tarball = archiveOf(name);
    const tools = join(root, 'node_modules/.bin');
    await run(['node', join(tools, 'publint'), 'run', tarball, '--strict']);
    await run(['node', join(tools, 'attw'), tarball, '--profile', 'esm-only']);
  },
  180_000,
);

test('the server in the package for backends runs where it is installed, with the framework alone beside it', async () => {
  const folder = temporaryFolder('install');
  await unpack(archiveOf('server'), join(folder, 'node_modules/@sobranie/server'));
  symlinkSync(realpathSync(join(root, 'node_modules/elysia')), join(folder, 'node_modules/elysia'));
  const script = `
    import { Elysia } from 'elysia';
    import { realtime } from '@sobranie/server/elysia';
    import { startTestServer } from '@sobranie/server/testing';
    const settings = { DATABASE_URL: process.argv[2], LOG_LEVEL: 'silent', DRAIN_WINDOW: '0', SHUTDOWN_TIMEOUT: '0' };
    const app = new Elysia().use(realtime({ settings })).listen(0);
    const { offset } = await app.decorator.realtime.publish('news', 1);
    // The pages of the console are in the package, and the client that they import.
    const paths = ['', '/console.js', '/console-rates.js', '/theme.css', '/icon.svg', '/sobranie.js'];
    for (const path of paths) {
      const { status } = await fetch(\`\${app.server?.url.origin}/console\${path}\`);
      if (status !== 200) throw new Error(\`/console\${path}: \${status}\`);
    }
    try {
      realtime({ settings, swagger: true });
      throw new Error('swagger without its files');
    } catch (error) {
      if (!String(error).includes('swagger-ui-dist')) throw error;
    }
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

describe('create-sobranie', () => {
  let program: string;

  beforeAll(async () => {
    const folder = temporaryFolder('create');
    await unpack(join(archives, `create-sobranie-${version}.tgz`), folder);
    await run(['node', join(root, 'node_modules/.bin/publint'), 'run', folder, '--strict']);
    program = join(folder, 'dist/main.js');
  });

  interface Manifest {
    readonly name: string;
    readonly dependencies: Readonly<Record<string, string>>;
    readonly devDependencies: Readonly<Record<string, string>>;
  }

  const readManifest = (folder: string): Manifest =>
    JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')) as Manifest;

  /** As a package manager runs it, which names itself: by default npm, whatever ran the tests. */
  async function create(
    args: readonly string[],
    cwd: string,
    manager = 'npm/11.0.0 node/v22.0.0',
  ): Promise<{ code: number; out: string; errors: string }> {
    const env = { ...process.env, npm_config_user_agent: manager };
    const child = Bun.spawn(['node', program, ...args], { cwd, env, stdin: 'ignore', stdout: 'pipe', stderr: 'pipe' });
    const [out, errors, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
    return { code, out, errors };
  }

  /** What an installation would do, with what this checkout has. */
  async function install(app: string): Promise<void> {
    const { dependencies, devDependencies } = readManifest(app);
    const modules = join(app, 'node_modules');
    mkdirSync(join(modules, '.bin'), { recursive: true });
    for (const [name, wanted] of Object.entries({ ...dependencies, ...devDependencies })) {
      const target = join(modules, name);
      if (wanted.startsWith('file:')) {
        await unpack(join(app, wanted.slice('file:'.length)), target);
        continue;
      }
      if (name === 'bun') {
        expect(wanted).toBe(Bun.version);
        symlinkSync(process.execPath, join(modules, '.bin/bun'));
        continue;
      }
      const installed = join(root, 'node_modules', name);
      // An app begins with what the project is tested with.
      const { version: tested } = JSON.parse(readFileSync(join(installed, 'package.json'), 'utf8')) as {
        version: string;
      };
      expect({ name, wanted }).toEqual({ name, wanted: tested });
      mkdirSync(dirname(target), { recursive: true });
      symlinkSync(realpathSync(installed), target);
    }
    for (const name of ['vite', 'tsc']) {
      symlinkSync(realpathSync(join(root, 'node_modules/.bin', name)), join(modules, '.bin', name));
    }
  }

  test('published, an app takes the packages by their version', async () => {
    const folder = temporaryFolder('published');
    expect(await create(['shop'], folder)).toMatchObject({ code: 0, errors: '' });
    const { name, dependencies } = readManifest(join(folder, 'shop'));
    expect(name).toBe('shop');
    expect(dependencies).toMatchObject({ '@sobranie/client': version, '@sobranie/react': version });
    expect(readFileSync(join(folder, 'shop/.gitignore'), 'utf8')).toContain('.env');
    // Two secrets, of this app alone.
    const secrets = readFileSync(join(folder, 'shop/.env'), 'utf8').match(/^[A-Z_]+=\S{43}$/gm);
    expect(new Set(secrets?.map((line) => line.split('=')[1])).size).toBe(2);
  });

  const refused: readonly (readonly [string, readonly string[], number, RegExp])[] = [
    ['a name that is no package', ['My App'], 2, /"My App" cannot be the name of an app/],
    ['a name that npm keeps for itself', ['node_modules'], 2, /cannot be the name/],
    ['no name, and nobody to ask', [], 2, /which folder\?/],
    ['two names', ['one', 'two'], 2, /one folder, please/],
    ['an option that there is not', ['--yes', 'app'], 2, /Unknown option '--yes'/],
    ['a folder that is not empty', ['full'], 1, /not empty: it holds notes.txt$/m],
    ['a file', ['full/notes.txt'], 1, /is a file/],
    ['a folder in a file', ['full/notes.txt/app'], 1, /is a file/],
    ['archives that are not there', ['app', '--packages', 'full'], 1, /full lacks sobranie-client-/],
  ];

  test.each(refused)('%s is refused, and nothing is written', async (_name, args, code, message) => {
    const folder = temporaryFolder('refused');
    mkdirSync(join(folder, 'full'));
    writeFileSync(join(folder, 'full/notes.txt'), 'mine');
    const { errors, ...answer } = await create(args, folder);
    expect(answer).toEqual({ code, out: '' });
    expect(errors).toMatch(message);
    expect(errors).not.toContain('    at ');
    expect(new Set(readdirSync(folder, { recursive: true, encoding: 'utf8' }))).toEqual(
      new Set(['full', 'full/notes.txt']),
    );
  });

  test.each([
    ['npm', 'npm/11.0.0 node/v22.0.0'],
    ['bun', 'bun/1.4.5 npm/? node/v22.0.0'],
    ['pnpm', 'pnpm/10.0.0 npm/? node/v22.0.0'],
    ['npm', ''],
  ])('the next steps are those of %s, named by "%s"', async (name, manager) => {
    const { out } = await create(['shop'], temporaryFolder('steps'), manager);
    expect(out).toContain(`  cd shop\n  ${name} install\n  ${name} run dev\n`);
  });

  test('--help says how it is used', async () => {
    const { code, out } = await create(['--help'], root);
    expect(code).toBe(0);
    expect(out).toContain('npm create sobranie@latest <folder>');
  });

  test('an app starts by one command, and two people see the same rows and each other', async () => {
    const folder = temporaryFolder('app');
    const { code, errors: refusal } = await create(['my-app', '--packages', archives], folder);
    expect({ code, refusal }).toEqual({ code: 0, refusal: '' });
    const app = join(folder, 'my-app');
    await install(app);
    const [port, pagePort] = await Promise.all([freePort(), freePort()]);
    const ports = { PORT: String(port), PAGE_PORT: String(pagePort), npm_config_update_notifier: 'false' };
    const dev = spawnProgram(['npm', 'run', 'dev'], ports, app);
    const browser = await launchBrowser();
    try {
      await dev.waitForOutput(/Local:/, 60_000);
      const login = async (user: string) => {
        const { page, errors } = await browser.newPage();
        page.setDefaultTimeout(90_000);
        await page.goto(`http://localhost:${pagePort}/`);
        await page.getByLabel('Your name').fill(user);
        await page.getByRole('button', { name: 'Log in' }).click();
        await page.getByRole('status').getByText('live').waitFor();
        return { page, errors };
      };
      const [ann, bob] = await Promise.all([login('ann'), login('bob')]);
      await ann.page.getByLabel('New task').fill('milk');
      await ann.page.getByRole('button', { name: 'Add' }).click();
      for (const { page } of [ann, bob]) {
        await page.getByText('milk').waitFor();
        for (const user of ['ann', 'bob']) await page.getByLabel('Online').getByText(user, { exact: true }).waitFor();
      }
      await bob.page.getByRole('checkbox', { name: 'milk' }).check();
      await ann.page.locator('input:checked').waitFor();
      // A reload is no logout.
      await bob.page.reload();
      await bob.page.locator('input:checked').waitFor();
      await bob.page.getByRole('button', { name: 'Log out bob' }).click();
      await bob.page.getByLabel('Your name').waitFor();
      await ann.page.getByLabel('Online').getByText('bob').waitFor({ state: 'detached' });
      await ann.page.getByRole('button', { name: 'Delete milk' }).click();
      await ann.page.getByText('milk').waitFor({ state: 'detached' });
      // The first thing that a page asks is who it is; the browser notes the answer "nobody".
      const unexpected = [...ann.errors, ...bob.errors].filter((text) => !text.includes('401'));
      expect(unexpected).toEqual([]);
    } finally {
      await browser.close();
      // npm hands the signal to a shell, which ends alone; a terminal reaches them all.
      for (const pid of running('dev.ts', app)) process.kill(pid, 'SIGTERM');
      await dev.waitForExit();
    }
    expect(running('node_modules/.bin/vite', app)).toEqual([]);
    // With the checks of its types.
    await run([process.execPath, 'run', 'build'], app);
    expect(existsSync(join(app, 'dist/index.html'))).toBe(true);
  }, 300_000);
});

/** Processes that run this script in this folder. */
function running(script: string, folder: string): number[] {
  return readdirSync('/proc')
    .map(Number)
    .filter((pid) => {
      try {
        const words = readFileSync(`/proc/${pid}/cmdline`, 'latin1').split('\0');
        return readlinkSync(`/proc/${pid}/cwd`) === folder && words.includes(script);
      } catch {
        // It is no process, or has ended.
        return false;
      }
    });
}
