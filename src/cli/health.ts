// `sobranie health`: whether one node works, and if not, since when and why. For people, and as the health check of a
// container that has no other program in it.

import type { Command } from 'commander';
import { CommandError, Output } from './output.ts';
import { membersOf, onServer, reasonOf, Server, type ServerOptions } from './server.ts';

export function addHealth(program: Command): void {
  const port = process.env['PORT'] ?? '3000';
  const command = onServer(program.command('health'))
    .description('whether a node works, with the cause if not; exits with 1 if not')
    .option('--live', 'only whether its process answers')
    .action(health);
  command.setOptionValueWithSource('url', process.env['SOBRANIE_URL'] ?? `http://localhost:${port}`, 'default');
}

interface HealthOptions extends ServerOptions {
  readonly live?: true;
}

interface Report {
  readonly status: string;
  readonly checks: Readonly<
    Record<string, { ok: boolean; since: string; lastError?: { message: string; at: string } | undefined }>
  >;
}

const answerMsMax = 4_000;

async function health(options: HealthOptions): Promise<void> {
  const { url } = new Server(options);
  const output = new Output(options.json === true);
  const report = await read(`${url}/health/${options.live === true ? 'live' : 'ready'}`);
  const rows = Object.entries(report.checks).map(([check, { ok, since, lastError }]) => ({
    check,
    state: ok ? 'ok' : 'failing',
    since,
    'last error': lastError && `${lastError.message} (${lastError.at})`,
  }));
  if (output.json) output.result(report, '');
  else output.table(rows, 'nothing is checked');
  if (report.status !== 'ok') throw new CommandError(`${url} is ${report.status}`);
}

async function read(url: string): Promise<Report> {
  let text: string;
  try {
    const response = await fetch(url, { signal: AbortSignal.timeout(answerMsMax) });
    text = await response.text();
  } catch (error) {
    throw new CommandError(`${url} does not answer: ${reasonOf(error)}`);
  }
  const report = membersOf(text) as Partial<Report>;
  if (report.status !== undefined && report.checks !== undefined) return { ...report } as Report;
  throw new CommandError(`${url}: something else than a Sobranie server answers`);
}
