// What the code promises to others and where that must be written: codes and frames in the wire's document, settings
// and metrics in the README or under docs/.

import { closeCodes, errorCodes } from '../../../src/protocol/codes.ts';
import { allSettings, settingsTable } from '../../../src/settings/table.ts';
import { finding, type Finding } from './finding.ts';
import type { SourceFile } from './source-files.ts';

const wirePath = 'src/protocol/PROTOCOL.md';
const readmePath = 'README.md';

type Files = ReadonlyMap<string, SourceFile>;

/** Every error code, close code, gap reason and frame type that the wire's document leaves out. */
export function undocumentedWire(files: Files): Finding[] {
  const document = files.get(wirePath)?.text;
  if (document === undefined) return [`${wirePath} does not exist`];
  const words = [
    ...Object.keys(errorCodes).map((code) => ({ kind: 'error code', word: code })),
    ...Object.values(closeCodes).map((code) => ({ kind: 'close code', word: String(code) })),
    ...literalsOf(files, 'src/protocol/codes.ts', /type GapReason =([^;]*);/g).map((word) => ({
      kind: 'gap reason',
      word,
    })),
    ...['src/protocol/frames.ts', 'src/protocol/commands.ts'].flatMap((path) =>
      literalsOf(files, path, /^\s+readonly type: ('[^;]*);/gm).map((word) => ({ kind: 'frame type', word })),
    ),
  ];
  const missing = words.filter(({ word }) => !new RegExp(`[\`"| ]${word}[\`"| ,.;:]`).test(document));
  return missing.map(({ kind, word }) => `${wirePath}: ${kind} ${word} is not documented`);
}

/** The quoted words inside each match's first group. */
function literalsOf(files: Files, path: string, pattern: RegExp): string[] {
  const text = files.get(path)?.uncommented ?? '';
  const groups = Array.from(text.matchAll(pattern), (match) => match[1] ?? '');
  const words = groups.flatMap((group) => Array.from(group.matchAll(/'([^']+)'/g), (match) => match[1] ?? ''));
  if (words.length === 0)
    throw new Error(`${path}: nothing found by ${String(pattern)}; this rule has lost its object`);
  return words;
}

/** Rows of the settings' table that the README lacks or tells otherwise. */
export function undocumentedSettings(files: Files): Finding[] {
  const readme = files.get(readmePath);
  if (readme === undefined) return [`${readmePath} does not exist`];
  const written = new Set(readme.text.split('\n').map(squeeze));
  const rows = settingsTable().split('\n').slice(2);
  return rows.flatMap((row, index) => {
    if (written.has(squeeze(row))) return [];
    const name = allSettings[index]?.name ?? row;
    const position = Math.max(0, readme.text.indexOf(`| \`${name}\``));
    return [finding(readme, position, `setting ${name} is missing or out of date; run: bun scripts/settings-table.ts`)];
  });
}

/** Formatters pad the cells of a table. */
function squeeze(line: string): string {
  return line.replace(/\s+/g, ' ').trim();
}

/** Names of metrics that stand neither in the README nor under docs/. */
export function undocumentedMetrics(files: Files): Finding[] {
  const documents = [...files.values()].filter(({ path }) => path === readmePath || /^docs\/.*\.md$/.test(path));
  const written = documents.map(({ text }) => text).join('\n');
  const sources = [...files.values()].filter(({ path }) => /^src\/metrics\/.*\.ts$/.test(path));
  return sources.flatMap((file) =>
    Array.from(file.uncommented.matchAll(/'((?:sobranie|process)_[a-z_]+)'/g), (match) => ({
      name: match[1] ?? '',
      position: match.index,
    }))
      .filter(({ name }) => !new RegExp(`\\b${name}\\b`).test(written))
      .map(({ name, position }) => finding(file, position, `metric ${name} is not documented`)),
  );
}
