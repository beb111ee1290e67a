// Figures as text: the machine's facts, medians, and tables whose columns line up in a terminal and in a README alike.
import { cpus, release, totalmem } from 'node:os';
import type { Bar } from './options.ts';

export type Cell = string | number;

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? Number.NaN) + upper) / 2;
}

export function percentile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
}

export function thousands(value: number): string {
  return value >= 10_000 ? `${Math.round(value / 1000).toLocaleString('en')}k` : Math.round(value).toLocaleString('en');
}

export const ratio = (value: number): string => value.toFixed(2);
export const ratios = (values: readonly number[]): string => values.map(ratio).join(' ');

export function printTable(title: string, head: readonly string[], rows: readonly (readonly Cell[])[]): void {
  const lines = [head, ...rows].map((row) => row.map(String));
  const widths = head.map((_, column) => Math.max(...lines.map((line) => line[column]?.length ?? 0)));
  const print = (line: readonly string[]) =>
    console.log(`| ${widths.map((width, i) => pad(line[i] ?? '', width, i > 0)).join(' | ')} |`);
  console.log(`\n${title}\n`);
  for (const [index, line] of lines.entries()) {
    print(line);
    if (index === 0) console.log(`|${widths.map((width, i) => rule(width, i > 0)).join('|')}|`);
  }
}

const pad = (text: string, width: number, right: boolean): string =>
  right ? text.padStart(width) : text.padEnd(width);
const rule = (width: number, right: boolean): string => (right ? `${'-'.repeat(width + 1)}:` : '-'.repeat(width + 2));

export function machineFacts(): string {
  const processors = cpus();
  const memory = Math.round(totalmem() / 2 ** 30);
  return (
    `${processors.length} cores (${processors[0]?.model.trim() ?? 'unknown'}), ${memory} GiB, ` +
    `${process.platform} ${release()}, bun ${Bun.version}`
  );
}

export function printBars(bars: readonly Bar[]): void {
  if (bars.length === 0) return;
  printTable(
    'Against the bars',
    ['', 'measured', 'bar', ''],
    bars.map(({ name, measured, atMost, atLeast }) => {
      const limit = atMost === undefined ? `>= ${ratio(atLeast ?? 0)}` : `<= ${ratio(atMost)}`;
      const cleared = atMost === undefined ? measured >= (atLeast ?? 0) : measured <= atMost;
      return [name, ratio(measured), limit, cleared ? 'cleared' : 'missed'];
    }),
  );
}
