// The project's files as the tidy rules see them: each with its text, and with two blanked copies of it in which
// every character keeps its place, so that a position in one is a position in all.

import { existsSync, readFileSync, statSync } from 'node:fs';
import { blank } from './blank.ts';

export interface SourceFile {
  /** From the project's root, with `/`. */
  readonly path: string;
  readonly text: string;
  /** Comments blanked: what the program says, strings included. */
  readonly uncommented: string;
  /** Comments and the insides of strings and regular expressions blanked: code alone. */
  readonly code: string;
}

export const projectRoot = new URL('../../..', import.meta.url).pathname.replace(/\/$/, '');

const textBytesMax = 2_000_000;

/** What git tracks or would track; without git, everything but what is never tracked. */
export function listFiles(): string[] {
  const git = Bun.spawnSync(['git', 'ls-files', '-co', '--exclude-standard'], {
    cwd: projectRoot,
    stderr: 'ignore',
  });
  const listed = git.success
    ? git.stdout.toString().split('\n')
    : [...new Bun.Glob('**/*').scanSync({ cwd: projectRoot, dot: true })].filter(
        (path) => !/^(node_modules|\.git|\.data)\/|\/\.build\//.test(path),
      );
  return listed.filter((path) => path !== '' && existsSync(`${projectRoot}/${path}`)).sort();
}

/** Every text file of the project. */
export function readSources(): SourceFile[] {
  return listFiles().flatMap((path) => {
    const absolute = `${projectRoot}/${path}`;
    const stat = statSync(absolute);
    if (!stat.isFile() || stat.size > textBytesMax) return [];
    const text = readFileSync(absolute, 'utf8');
    return text.includes('\0') ? [] : [sourceFile(path, text)];
  });
}

export function sourceFile(path: string, text: string): SourceFile {
  if (!isScript(path)) return { path, text, uncommented: text, code: text };
  return { path, text, ...blank(text) };
}

export function isScript(path: string): boolean {
  return /\.(ts|tsx|js|mjs)$/.test(path);
}

/** 1 for the first line. */
export function lineAt(text: string, position: number): number {
  let line = 1;
  for (let index = text.indexOf('\n'); index !== -1 && index < position; index = text.indexOf('\n', index + 1)) line++;
  return line;
}
