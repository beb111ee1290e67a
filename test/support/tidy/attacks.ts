// The README's table of what an attacker or a fault may do: each row names a test, and the test must be there.

import { finding, type Finding } from './finding.ts';
import type { SourceFile } from './source-files.ts';

const heading = '## What an attacker or a bug may do';
/** `| what | what happens | \`folder/file.test.ts\`: the test's name |` */
const row = /^\|.*\|\s*`([\w/.-]+\.test\.ts)`: (.+?)\s*\|\s*$/;
/** Fewer would be a table that somebody cut. */
const rowsMin = 40;

/** Rows of the table that name no test, or one that is not there. */
export function unprovedAttacks(files: ReadonlyMap<string, SourceFile>): Finding[] {
  const readme = files.get('README.md');
  if (readme === undefined) return ['README.md does not exist'];
  const start = readme.text.indexOf(heading);
  if (start === -1) return [`README.md: the section "${heading}" is missing`];
  const end = readme.text.indexOf('\n## ', start + heading.length);
  const section = readme.text.slice(start, end === -1 ? undefined : end);
  const findings: Finding[] = [];
  let rows = 0;
  let position = start;
  for (const line of section.split('\n')) {
    const isRow = line.startsWith('|') && !/^\|[\s|:-]*\|$/.test(line) && !line.startsWith('| what ');
    if (isRow) {
      rows++;
      findings.push(...unproved(line, files).map((text) => finding(readme, position, text)));
    }
    position += line.length + 1;
  }
  if (rows < rowsMin) findings.push(finding(readme, start, `only ${rows} of at least ${rowsMin} rows`));
  return findings;
}

function unproved(line: string, files: ReadonlyMap<string, SourceFile>): string[] {
  const [, path, name] = row.exec(line) ?? [];
  if (path === undefined || name === undefined) return ['a row names no test'];
  const test = files.get(`test/${path}`);
  if (test === undefined) return [`test/${path} does not exist`];
  return test.text.includes(name.replaceAll('\\|', '|')) ? [] : [`test/${path} has no test "${name}"`];
}
