// What a tidy rule answers: where something is wrong, and which rule says so.

import { lineAt, type SourceFile } from './source-files.ts';

/** `path:line: what is wrong`, ready to be clicked. */
export type Finding = string;

export type Rule = (file: SourceFile) => Finding[];

export function finding(file: SourceFile, position: number, message: string): Finding {
  return `${file.path}:${lineAt(file.text, position)}: ${message}`;
}

/** A finding for each match in the given view of the file whose text counts. */
export function matches(
  file: SourceFile,
  view: 'text' | 'uncommented' | 'code',
  pattern: RegExp,
  message: string,
  counts: (text: string) => boolean = () => true,
): Finding[] {
  return Array.from(file[view].matchAll(pattern)).flatMap((match) => {
    const text = file.text.slice(match.index, match.index + match[0].length);
    return counts(text) ? [finding(file, match.index, `${message}: ${text.trim().slice(0, 60)}`)] : [];
  });
}
