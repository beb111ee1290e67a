// docs/security.md, the list of what an attacker or a fault may do: each item names a test, and the test must be there.

import { finding, type Finding } from './finding.ts';
import type { SourceFile } from './source-files.ts';

const path = 'docs/security.md';
/** `- **What is tried.** What happens.` and, in a line of its own, `` `folder/file.test.ts`: the test's name ``. */
const proof = /^ {2}`([\w/.-]+\.test\.ts)`: (.+)$/m;
/** Fewer would be a list that somebody cut. */
const itemsMin = 110;

/** Items of the list that name no test, or one that is not there. */
export function unprovedAttacks(files: ReadonlyMap<string, SourceFile>): Finding[] {
  const document = files.get(path);
  if (document === undefined) return [`${path} does not exist`];
  const items = Array.from(document.text.matchAll(/^- .*\n(?: {2}.*\n)*/gm));
  const findings = items.flatMap((item) => unproved(item[0], files).map((text) => finding(document, item.index, text)));
  if (items.length < itemsMin)
    findings.push(finding(document, 0, `only ${items.length} of at least ${itemsMin} items`));
  return findings;
}

function unproved(item: string, files: ReadonlyMap<string, SourceFile>): string[] {
  const [, file, name] = proof.exec(item) ?? [];
  if (file === undefined || name === undefined) return ['an item names no test'];
  const test = files.get(`test/${file}`);
  if (test === undefined) return [`test/${file} does not exist`];
  return test.text.includes(name) ? [] : [`test/${file} has no test "${name}"`];
}
