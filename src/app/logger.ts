// The log: pino on stdout, as JSON for machines or as lines for people. It writes synchronously, so that the last line
// before an exit is written too. Credentials in URLs and headers are removed from every line.

import { isatty } from 'node:tty';
import pino, { type Logger } from 'pino';
import { redactText } from '../settings/redact.ts';
import type { LogFormat } from '../settings/settings.ts';

export type { Logger } from 'pino';

export interface LoggerOptions {
  readonly level: string;
  readonly format: LogFormat;
  /** This node's name, in every JSON line. */
  readonly node?: string | undefined;
  /** Where finished lines go, each with its line break. Default: stdout. */
  readonly write?: ((line: string) => void) | undefined;
  /** Colours in `pretty` lines. Default: when stdout is a terminal and NO_COLOR is not set. */
  readonly colors?: boolean | undefined;
}

export interface LoggedLine {
  /** Unix milliseconds. */
  readonly at: number;
  readonly level: string;
  readonly text: string;
}

const recentMax = 100;
const recentTextMax = 500;
const recentLines = new WeakMap<object, LoggedLine[]>();

/** The last warnings and errors of this log, the newest last. */
export function recentOf(log: Logger): readonly LoggedLine[] {
  return recentLines.get(log) ?? [];
}

/** Fields whose names mark secrets, at the top of a log call and one level down. */
const secretFields = ['authorization', 'cookie', 'token', 'password', 'secret', 'apiKey', 'adminKey', 'jwtSecret'];

export function createLogger(options: LoggerOptions): Logger {
  const { level, format, node } = options;
  const write = options.write ?? stdoutWriter();
  const colors = options.colors ?? (isatty(1) && !process.env['NO_COLOR']);
  const show = format === 'json' ? redactText : (line: string) => redactText(prettyLine(line, colors));
  const recent: LoggedLine[] = [];
  const keep = (line: string): void => {
    if (!/^\{"level":"(?:warn|error|fatal)"/.test(line)) return;
    const { level, time, msg, err, table, reason } = JSON.parse(redactText(line)) as Record<string, unknown>;
    const cause = (err as { message?: unknown } | undefined)?.message;
    const text = [msg, cause, table, reason].filter((part) => typeof part === 'string').join(': ');
    recent.push({ at: Date.parse(String(time)), level: String(level), text: text.slice(0, recentTextMax) });
    if (recent.length > recentMax) recent.shift();
  };
  const log = pino(
    {
      level,
      base: node === undefined ? null : { node },
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      redact: { paths: secretFields.flatMap((field) => [field, `*.${field}`]), censor: '***' },
    },
    {
      write: (line: string) => {
        keep(line);
        write(show(line));
      },
    },
  );
  recentLines.set(log, recent);
  return log;
}

function stdoutWriter(): (line: string) => void {
  const stdout = pino.destination({ dest: 1, sync: true });
  return (line) => {
    stdout.write(line);
  };
}

const levelColors: Readonly<Record<string, number>> = {
  trace: 90,
  debug: 36,
  info: 32,
  warn: 33,
  error: 31,
  fatal: 35,
};

/** One JSON line of pino's as `time LEVEL message key=value …`, with an error's stack on the lines below. */
function prettyLine(line: string, colors: boolean): string {
  const record: unknown = JSON.parse(line);
  if (typeof record !== 'object' || record === null) return line;
  const { level, time, msg, err, node: _node, ...fields } = record as Record<string, unknown>;
  const label = String(level);
  const paint = (text: string, code: number) => (colors ? `\u001b[${code}m${text}\u001b[0m` : text);
  const parts = [paint(String(time).slice(11, 23), 90), paint(label.toUpperCase().padEnd(5), levelColors[label] ?? 0)];
  if (msg !== undefined) parts.push(prettyText(msg));
  for (const [key, value] of Object.entries(fields)) parts.push(paint(`${key}=${prettyValue(value)}`, 90));
  return `${parts.join(' ')}${prettyError(err)}\n`;
}

function prettyText(value: unknown): string {
  return typeof value === 'string' ? value : JSON.stringify(value);
}

function prettyValue(value: unknown): string {
  return typeof value === 'string' && /^[^\s"=]+$/.test(value) ? value : JSON.stringify(value);
}

function prettyError(error: unknown): string {
  if (error === undefined) return '';
  const { stack, message } = (typeof error === 'object' && error !== null ? error : {}) as Record<string, unknown>;
  return `\n${prettyText(stack ?? message ?? error).replace(/^/gm, '    ')}`;
}
