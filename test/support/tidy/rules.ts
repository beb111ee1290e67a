// The rules of style that a machine can hold: sizes, names, opening comments and what is banned.
// Words that are banned everywhere are put together from parts here, so that this file keeps its own rules.

import { finding, matches, type Finding, type Rule } from './finding.ts';
import { isScript, type SourceFile } from './source-files.ts';

const ownFolders = /^(src|packages|test|bench|scripts|examples)\//;

function isTest(path: string): boolean {
  return path.startsWith('test/');
}

export const fileSize: Rule = (file) => {
  const limit = /^(src|packages|scripts)\//.test(file.path) ? 400 : file.path.startsWith('bench/') ? 400 : undefined;
  if (limit === undefined || !isScript(file.path)) return [];
  const lines = file.text.trimEnd().split('\n').length;
  return lines <= limit ? [] : [finding(file, 0, `${lines} lines, more than ${limit}: something wants out`)];
};

export const openingComment: Rule = (file) => {
  if (!ownFolders.test(file.path) || !isScript(file.path)) return [];
  const start = file.text.replace(/^#!.*\n/, '').trimStart();
  return start.startsWith('//') || start.startsWith('/*')
    ? []
    : [finding(file, 0, 'says not what it is responsible for')];
};

export const fileName: Rule = (file) => {
  if (!ownFolders.test(file.path)) return [];
  const name = file.path.slice(file.path.lastIndexOf('/') + 1);
  return /^[A-Z]+\.md$|^\.?[a-z0-9]+([.-][a-z0-9]+)*$/.test(name)
    ? []
    : [finding(file, 0, 'is not named in kebab-case')];
};

const anyPattern = /(?:[:<,|&=(]\s*|\bas\s+)any\b(?!\s*[:(.])|\bany\[\]/g;
const nonNullPattern = /[\w)\]]!(?!=)/g;
const ignorePattern = new RegExp('@ts-(ig' + 'nore|noc' + 'heck)', 'g');
const laterPattern = new RegExp('\\b(TO' + 'DO|FIX' + 'ME|XX' + 'X)\\b', 'g');
const focusPattern = /\b(?:test|it|describe)\.(?:skip|only|todo)\b/g;
const emptyCatchPattern = /\bcatch\s*(?:\([^)]*\))?\s*\{\s*\}|\.catch\(\s*\(\w*\)\s*=>\s*\{\s*\}\s*\)/g;
const machinePattern = new RegExp(
  ['registry\\.npm' + 'js', 'deb\\.deb' + 'ian\\.org', '(?<![\\w./-])/wo' + 'rk/', 'bash_' + 'jobs'].join('|'),
  'g',
);

export const noAny: Rule = (file) => inScripts(file, 'code', anyPattern, '`any` switches the types off');

export const noNonNull: Rule = (file) =>
  isTest(file.path) ? [] : inScripts(file, 'code', nonNullPattern, '`!` claims what the types cannot see');

export const noTypeIgnored: Rule = (file) => inScripts(file, 'text', ignorePattern, 'switches the types off');

export const nothingLater: Rule = (file) => matches(file, 'text', laterPattern, 'do it now or leave it');

/** Programs may: those that tests start, too. */
export const noConsole: Rule = (file) =>
  file.path.endsWith('.test.ts') ||
  /^(src\/(?!app\/|cli\/|main\.ts$|sobranie\.ts$)|packages\/(?!client\/src\/debug\.ts$|create-sobranie\/template\/))/.test(
    file.path,
  )
    ? inScripts(file, 'code', /\bconsole\.\w+/g, 'the log is for this')
    : [];

export const noFocusedTest: Rule = (file) => inScripts(file, 'code', focusPattern, 'every test runs');

/** A comment in the braces says why nothing is done, which is enough. */
export const noEmptyCatch: Rule = (file) =>
  inScripts(file, 'code', emptyCatchPattern, 'a fault vanishes here', (text) => !/\/[/*]/.test(text));

export const noMachineNames: Rule = (file) =>
  matches(file, 'text', machinePattern, 'names a machine or a registry that others do not have');

function inScripts(
  file: SourceFile,
  view: 'text' | 'code',
  pattern: RegExp,
  message: string,
  counts?: (text: string) => boolean,
): Finding[] {
  return ownFolders.test(file.path) && isScript(file.path) ? matches(file, view, pattern, message, counts) : [];
}
