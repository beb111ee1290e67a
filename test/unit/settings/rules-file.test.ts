// The rules file, read again and again as it is edited: what counts is what it and its imports say now.

import { heapStats } from 'bun:jsc';
import { existsSync, mkdirSync, renameSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'bun:test';
import { actions } from '../../../src/rules/config.ts';
import { RulesFile, RulesError } from '../../../src/settings/rules-file.ts';
import { temporaryFolder } from '../../support/janitor.ts';
import { until } from '../../support/tcp-client.ts';

function rulesIn(folder = temporaryFolder('rules-file')) {
  const path = join(folder, 'realtime.config.ts');
  const write = (text: string, name = 'realtime.config.ts'): void => writeFileSync(join(folder, name), text);
  const file = new RulesFile(path);
  const patterns = async (): Promise<string> => {
    const rules = await file.read();
    return rules.all.map(({ pattern }) => pattern.slice(1, -1).replaceAll('.*', '*')).join(' ');
  };
  const faults = async (): Promise<string> => {
    const error: unknown = await file.read().catch((reason: unknown) => reason);
    return error instanceof RulesError ? error.faults.join() : 'none';
  };
  return { folder, write, patterns, faults };
}

const configOf = (...channels: string[]): string =>
  `import { defineConfig } from 'sobranie/config';
  export default defineConfig({ rules: [${channels.map((name) => `{ channels: '${name}' }`).join()}] });`;

// The fallback rule for all channels stands last.
test('what was written last is what counts', async () => {
  const { write, patterns } = rulesIn();
  for (const name of ['one:*', 'two:*', 'three:*', 'one:*']) {
    write(configOf(name));
    expect(await patterns()).toBe(`${name} *`);
  }
});

test('files that it imports by path are read again too, directly or through others', async () => {
  const { write, patterns } = rulesIn();
  write(`import { name } from './names.ts'; import list from './list.json';
    export default { rules: [{ channels: name }, { channels: list[0] }] };`);
  write(`export { name } from './deep.js';`, 'names.ts');
  for (const round of [1, 2, 3]) {
    write(`export const name = 'deep:${round}:*';`, 'deep.js');
    write(`["list:${round}:*"]`, 'list.json');
    expect(await patterns()).toBe(`deep:${round}:* list:${round}:* *`);
  }
});

test('modules of the server that it imports stay the server’s own', async () => {
  const { write, patterns } = rulesIn();
  write(`import { actions } from ${JSON.stringify(join(import.meta.dir, '../../../src/rules/config.ts'))};
    export default { rules: [{ channels: 'one:*', authorize: () => actions }] };`);
  for (const _ of [1, 2]) expect(await patterns()).toBe('one:* *');
  const again = (await import('../../../src/rules/config.ts')) as { actions: unknown };
  expect(again.actions).toBe(actions);
});

test('a file that was broken in between, or an import of it, counts once it is mended', async () => {
  const { write, patterns, faults } = rulesIn();
  write(configOf('one:*'));
  expect(await patterns()).toBe('one:* *');
  write(`export default {`);
  expect(await faults()).toMatch(/cannot be read: .+ \(line 1, column \d+\)$/);
  // Of several errors only their number was said.
  write(`export default {\n  rules: [{ channels: 'one:*', ) });`);
  expect(await faults()).toMatch(/cannot be read: Expected .+ \(line 2, column \d+\); .+ \(line 2, column \d+\)/);
  write(`import './part.ts'; ${configOf('two:*')}`);
  expect(await faults()).toContain('part.ts');
  write('const = 1;', 'part.ts');
  expect(await faults()).toMatch(/ \(.+part\.ts, line 1, column \d+\)/);
  write(`throw new Error('not yet');`, 'part.ts');
  expect(await faults()).toContain('not yet');
  write('export {};', 'part.ts');
  expect(await patterns()).toBe('two:* *');
});

test('one that takes for ever is given up, and holds up no later one', async () => {
  const { folder, write, patterns, faults } = rulesIn();
  write(configOf('one:*'));
  expect(await patterns()).toBe('one:* *');
  const begun = join(folder, 'begun');
  write(`await Bun.write(${JSON.stringify(begun)}, ''); await new Promise(() => undefined); ${configOf('two:*')}`);
  const hanging = faults();
  await until(() => existsSync(begun), 'the file is being evaluated');
  write(configOf('three:*'));
  for (const _ of [1, 2]) expect(await patterns()).toBe('three:* *');
  expect(await hanging).toContain('loading it took over 5000 ms');
  write(configOf('four:*'));
  expect(await patterns()).toBe('four:* *');
}, 20_000);

// As Kubernetes puts a ConfigMap in place: the path stays and leads through a link to another folder.
test('a link that leads elsewhere now is followed', async () => {
  const { folder, patterns } = rulesIn();
  for (const version of ['v1', 'v2']) {
    mkdirSync(join(folder, version));
    writeFileSync(join(folder, version, 'realtime.config.ts'), configOf(`${version}:*`));
    symlinkSync(version, join(folder, 'next'));
    renameSync(join(folder, 'next'), join(folder, 'data'));
    if (version === 'v1') symlinkSync('data/realtime.config.ts', join(folder, 'realtime.config.ts'));
    expect(await patterns()).toBe(`${version}:* *`);
  }
});

// Each read left a copy of the module in memory, for ever: 2,000 reads of such a file kept 70 MiB.
test('two hundred reads leave as much in memory as twenty', async () => {
  const { write, patterns } = rulesIn();
  const bulk = Array.from({ length: 1_000 }, (_, index) => `bulk line ${index} of the file`);
  write(`import { part } from './part.ts'; export const bulk = ${JSON.stringify(bulk)}.map((line) => line + part);
    export default { rules: [{ channels: 'one:*', allow: { subscribe: 'authorize' }, authorize: () => bulk.length > 0 }] };`);
  write(`export const part = '!';`, 'part.ts');
  const readAndMeasure = async (times: number) => {
    for (let index = 0; index < times; index++) await patterns();
    Bun.gc(true);
    const { objectTypeCounts, heapSize } = heapStats();
    return { modules: objectTypeCounts['ModuleRecord'] ?? 0, bytes: heapSize };
  };
  await readAndMeasure(20);
  const before = await readAndMeasure(20);
  const after = await readAndMeasure(200);
  expect(after.modules - before.modules).toBeLessThan(10);
  expect(after.bytes - before.bytes).toBeLessThan(256 << 10);
});
