// What the code promises to others and where that must be written: codes and frames in the wire's document, settings
// and metrics in docs/, as generated from the code.

import { engines } from '../../../src/app/engines.ts';
import { closeCodes, errorCodes } from '../../../src/protocol/codes.ts';
import { metricsTable } from '../../../src/metrics/table.ts';
import { transportKinds } from '../../../src/app/transports.ts';
import { settingsList } from '../../../src/settings/table.ts';
import { finding, type Finding } from './finding.ts';
import type { SourceFile } from './source-files.ts';

const wirePath = 'src/protocol/PROTOCOL.md';

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

/** Documents whose part between `<!-- generated -->` and `<!-- /generated -->` is not what the code makes of it. */
export function outdatedDocuments(files: Files): Finding[] {
  const documents = { 'docs/settings.md': settingsList(engines), 'docs/metrics.md': metricsTable(transportKinds) };
  return Object.entries(documents).flatMap(([path, generated]) => {
    const document = files.get(path);
    if (document === undefined) return [`${path} does not exist`];
    const place = /<!-- generated -->\n([^]*?)<!-- \/generated -->/.exec(document.text);
    const written = linesOf(place?.[1] ?? '');
    const due = linesOf(generated);
    if (written.join('\n') === due.join('\n')) return [];
    const line = due.find((each, index) => each !== written[index]) ?? 'something was added by hand';
    return [finding(document, place?.index ?? 0, `is out of date; run: bun run docs (${line})`)];
  });
}

/** Without what a formatter changes: blank lines, and how wide the cells of a table are. */
function linesOf(text: string): string[] {
  const lines = text.split('\n').map((line) => line.replace(/-{3,}/g, '---').replace(/\s+/g, ' ').trim());
  return lines.filter((line) => line !== '');
}
