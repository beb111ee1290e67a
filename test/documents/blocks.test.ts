// Each code block of the documents says how it is tested, and what needs no server or database is tested here: JSON
// parses, TypeScript is of the right types, rules files are read as the server reads them.

import { expect, test } from 'bun:test';
import { existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { RulesFile } from '../../src/settings/rules-file.ts';
import { objectsOf, parseDocument, readDocuments, type CodeBlock } from '../support/documents.ts';
import { projectRoot } from '../support/tidy/source-files.ts';

const blocks = readDocuments().flatMap((document) => document.blocks);

/** Per language: the words of which a block has exactly one, and the values that it may have. */
const decisions: Readonly<Record<string, { readonly words: readonly string[]; readonly values?: readonly string[] }>> =
  {
    text: { words: [] },
    json: { words: ['', 'published'] },
    sh: { words: ['run', 'norun'], values: ['prints'] },
    sql: { words: ['run'], values: ['as'] },
    ts: { words: ['check', 'rules'] },
    js: { words: ['run', 'browser', ''], values: ['prints', 'tested'] },
  };

function undecided({ language, words, values }: CodeBlock): string | undefined {
  const decision = decisions[language];
  if (decision === undefined) return `blocks of "${language}" have no test`;
  const [word = '', ...surplus] = words;
  if (surplus.length > 0 || ((word === '' ? decision.words.length > 0 : true) && !decision.words.includes(word))) {
    return `does not say how it is tested: ${decision.words.join(' or ')}`;
  }
  const unknown = [...values.keys()].filter((name) => decision.values?.includes(name) !== true);
  if (unknown.length > 0) return `no test knows what ${unknown.join(', ')} means`;
  if (language !== 'js') return undefined;
  const elsewhere = values.get('tested');
  if (word === '' && elsewhere === undefined) return 'does not say how it is tested';
  return elsewhere === undefined || existsSync(join(projectRoot, elsewhere))
    ? undefined
    : `${elsewhere} does not exist`;
}

test('every block says how it is tested', () => {
  const faults = blocks.flatMap((block) => {
    const fault = undecided(block);
    return fault === undefined ? [] : [`${block.place}: ${fault}`];
  });
  expect(faults.join('\n')).toBe('');
});

test.each([
  ['```\nx\n```\n', 'blocks of "" have no test'],
  ['```python\nx\n```\n', 'blocks of "python" have no test'],
  ['```sql\nx\n```\n', 'does not say how it is tested: run'],
  ['```ts run check\nx\n```\n', 'does not say how it is tested: check or rules'],
  ['```sh run as=web\nx\n```\n', 'no test knows what as means'],
  ['```js\nx\n```\n', 'does not say how it is tested'],
  ['```js tested=test/none.test.ts\nx\n```\n', 'test/none.test.ts does not exist'],
])('a block without a decision is found: %j', (text, fault) => {
  expect(parseDocument('a.md', text).blocks.map(undecided)).toEqual([fault]);
});

// Who listens to a page finds the way by its headings, and hears each cell of a table with the head of its column.
test('headings go down one step at a time, and each column has a head', () => {
  const faults = readDocuments().flatMap(({ path, text }) => {
    const lines = text.replaceAll(/^( *)```.*?^\1```/gms, '').split('\n');
    const levels = lines.flatMap((line) => /^(#+) /.exec(line)?.[1]?.length ?? []);
    const steps = levels.flatMap((level, index) =>
      level > (levels[index - 1] ?? 0) + 1 ? [`${path}: heading ${index}`] : [],
    );
    const tables = lines.flatMap((line, index) => {
      const isHead = /^\|[ :|-]+\|$/.test(lines[index + 1] ?? '');
      return isHead && /\| *\|/.test(line) ? [`${path}: a column without a head: ${line}`] : [];
    });
    return [...steps, ...tables];
  });
  expect(faults).toEqual([]);
});

test('JSON is JSON', () => {
  for (const block of blocks.filter(({ language }) => language === 'json')) {
    expect(() => objectsOf(block), block.place).not.toThrow();
  }
});

// Inside the project, so that its packages and its own name are found as a user's files find them.
const folder = join(projectRoot, 'node_modules', '.documents');

function written(block: CodeBlock): string {
  const path = join(folder, `${block.place.replace(/\W+/g, '-')}.ts`);
  writeFileSync(path, block.text);
  return path;
}

test('TypeScript is of the right types, and rules files are read without a fault', async () => {
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  try {
    // What the example of a rules file calls, and an application would have.
    const members =
      'export function isMember(user: string | null, room: string | undefined): boolean { return user === room; }';
    writeFileSync(join(folder, 'members.ts'), members);
    const typed = blocks.filter(({ language }) => language === 'ts');
    const paths = typed.map(written);
    const config = { extends: '../../tsconfig.json', include: ['../../src/**/*.d.ts'], files: paths };
    writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify(config));
    const check = Bun.spawn([process.execPath, 'x', 'tsc', '--noEmit', '-p', folder], {
      cwd: projectRoot,
      stdout: 'pipe',
    });
    expect(await new Response(check.stdout).text()).toBe('');
    expect(await check.exited).toBe(0);
    for (const [index, block] of typed.entries()) {
      if (!block.words.includes('rules')) continue;
      const rules = await new RulesFile(paths[index]).read();
      expect(rules.all.length, block.place).toBeGreaterThan(0);
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
