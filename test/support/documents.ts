// The project's documents as its tests read them: headings, links, tables and code blocks of every Markdown file.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { listFiles, projectRoot } from './tidy/source-files.ts';

/** A fenced block. The words after its language say how it is tested. */
export interface CodeBlock {
  /** Such as `docs/sql.md:12`, the line of the fence. */
  readonly place: string;
  readonly language: string;
  /** Words without a value, such as `run`. */
  readonly words: readonly string[];
  /** Words with one, such as `as=web` or `prints="two words"`. */
  readonly values: ReadonlyMap<string, string>;
  readonly text: string;
}

export interface MarkdownDocument {
  /** From the project's root. */
  readonly path: string;
  readonly text: string;
  /** What `#…` may lead to. */
  readonly anchors: ReadonlySet<string>;
  /** Of links and images, in order. */
  readonly targets: readonly string[];
  /** The texts of `` `code` `` in prose and tables. */
  readonly codeSpans: readonly string[];
  readonly blocks: readonly CodeBlock[];
}

export function readDocuments(): readonly MarkdownDocument[] {
  return listFiles()
    .filter((path) => path.endsWith('.md'))
    .map(readDocument);
}

export function readDocument(path: string): MarkdownDocument {
  return parseDocument(path, readFileSync(join(projectRoot, path), 'utf8'));
}

export function parseDocument(path: string, text: string): MarkdownDocument {
  const targets: string[] = [];
  const codeSpans: string[] = [];
  const headings: string[] = [];
  Bun.markdown.render(text, {
    heading: (children) => void headings.push(children),
    link: (children, { href }) => {
      targets.push(href);
      return children;
    },
    image: (_children, { src }) => void targets.push(src),
    codespan: (children) => {
      codeSpans.push(children);
      return children;
    },
  });
  return { path, text, anchors: anchorsOf(headings), targets, codeSpans, blocks: blocksOf(path, text) };
}

/** As the web pages of code hosts make them: repeated headings are numbered. */
function anchorsOf(headings: readonly string[]): ReadonlySet<string> {
  const anchors = new Set<string>();
  for (const heading of headings) {
    const slug = heading
      .toLowerCase()
      .replace(/[^\p{L}\p{N}_\- ]/gu, '')
      .replaceAll(' ', '-');
    let anchor = slug;
    for (let number = 1; anchors.has(anchor); number++) anchor = `${slug}-${number}`;
    anchors.add(anchor);
  }
  return anchors;
}

function blocksOf(path: string, text: string): CodeBlock[] {
  const fenced = text.matchAll(/^( *)```([^\n`]*)\n(.*?)^\1```$/gms);
  return Array.from(fenced, ({ index, 2: info = '', 3: content = '' }) => {
    const line = text.slice(0, index).split('\n').length;
    const [language = '', ...rest] = Array.from(info.matchAll(/\w+="[^"]*"|\S+/g), (match) => match[0]);
    const values = rest.filter((word) => word.includes('='));
    return {
      place: `${path}:${line}`,
      language,
      words: rest.filter((word) => !word.includes('=')),
      values: new Map(values.map((word) => valueOf(word))),
      text: content,
    };
  });
}

function valueOf(word: string): [string, string] {
  const at = word.indexOf('=');
  return [word.slice(0, at), word.slice(at + 1).replace(/^"(.*)"$/, '$1')];
}

/** The JSON objects of a block, each of which begins at a line's start. */
export function objectsOf(block: CodeBlock): unknown[] {
  return block.text.split(/\n(?=[[{])/).map((each) => JSON.parse(each) as unknown);
}

/** The cells of each row of the first table after `start`, without its head. */
export function tableAfter(document: MarkdownDocument, start: string): string[][] {
  const position = document.text.indexOf(start);
  if (position === -1) throw new Error(`${document.path} has no ${start}`);
  const lines = document.text.slice(position + start.length).split('\n');
  const first = lines.findIndex((line) => line.startsWith('|'));
  const rows = lines.slice(first);
  const end = rows.findIndex((line) => !line.startsWith('|'));
  return rows.slice(2, end === -1 ? undefined : end).map((row) =>
    row
      .split(/(?<!\\)\|/)
      .slice(1, -1)
      .map((cell) => cell.trim()),
  );
}
