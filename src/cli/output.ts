// What a command prints: sentences, tables and colours for people, or with `--json` one object per line for programs.
// Results go to stdout, everything about the way to them to stderr.

import { writeSync } from 'node:fs';
import { styleText } from 'node:util';
import { InvalidArgumentError } from 'commander';
import { printExact } from '../../packages/client/src/exact-json.ts';

type Style = Parameters<typeof styleText>[0];

const stdout = 1;
const failedExitCode = 1;
export const wrongCallExitCode = 2;

/** An end with a message for the person at the terminal, and no stack. */
export class CommandError extends Error {
  readonly exitCode: number;

  constructor(message: string, exitCode = failedExitCode) {
    super(message);
    this.name = 'CommandError';
    this.exitCode = exitCode;
  }
}

/** Something that the caller wrote is not what it has to be. */
export class WrongCall extends CommandError {
  constructor(message: string) {
    super(message, wrongCallExitCode);
  }
}

/** Reads the value of an option as a whole number; the command is called wrongly with any other text. */
export function wholeNumber(min: number, max: number): (text: string) => number {
  return (text) => {
    const number = /^\d{1,12}$/.test(text) ? Number(text) : Number.NaN;
    if (number >= min && number <= max) return number;
    throw new InvalidArgumentError(`It is not a whole number from ${min} to ${max}.`);
  };
}

/** For an argument: a name that is empty, as of a variable that is not set, is none. */
export function givenText(text: string): string {
  if (text !== '') return text;
  throw new InvalidArgumentError('It is empty.');
}

export class Output {
  readonly json: boolean;

  constructor(json: boolean) {
    this.json = json;
  }

  /** As text for people, as it is for programs. */
  result(value: unknown, text: string): void {
    print(this.json ? printExact(value) : text);
  }

  /** Rows with the same members; `empty` is said to people when there are none. */
  table(rows: readonly Readonly<Record<string, unknown>>[], empty: string): void {
    if (this.json) for (const row of rows) print(JSON.stringify(row));
    else if (rows.length === 0) print(this.paint('dim', empty));
    else print(tableText(rows, (text) => this.paint('dim', text)));
  }

  /** What happens on the way; programs do not get it. */
  progress(text: string): void {
    if (!this.json) console.error(this.paint('dim', text, process.stderr));
  }

  /** No colours where the stream is no terminal, or where NO_COLOR is set. */
  paint(style: Style, text: string, stream: NodeJS.WriteStream = process.stdout): string {
    return this.json ? text : styleText(style, text, { stream, validateStream: true });
  }
}

/** `console.log` does not notice that nobody reads any more, as behind `| head`: a command that goes on would never end. */
export function print(text: string): void {
  const bytes = Buffer.from(`${text}\n`);
  for (let at = 0; at < bytes.length;) {
    try {
      at += writeSync(stdout, bytes, at);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === 'EPIPE') process.exit(0);
      if (code !== 'EAGAIN') throw error;
      // The reader is slow, and the pipe does not wait by itself.
      Bun.sleepSync(1);
    }
  }
}

function tableText(rows: readonly Readonly<Record<string, unknown>>[], head: (text: string) => string): string {
  const names = [...new Set(rows.flatMap((row) => Object.keys(row)))];
  const cells = rows.map((row) => names.map((name) => cellText(row[name])));
  const widths = names.map((name, column) => Math.max(name.length, ...cells.map((row) => row[column]?.length ?? 0)));
  const lineOf = (line: readonly string[]): string =>
    line
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join('  ')
      .trimEnd();
  return [head(lineOf(names)), ...cells.map(lineOf)].join('\n');
}

function cellText(value: unknown): string {
  if (value === undefined || value === null) return '';
  if (Array.isArray(value)) return value.map(cellText).join(' ');
  if (value instanceof Date) return value.toISOString();
  return typeof value === 'string' ? value : JSON.stringify(value);
}
