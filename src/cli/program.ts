// The command `sobranie`: what it can do, and how it ends. Exit codes: 0, 1 when it failed, 2 when it was called wrongly,
// 78 for faulty settings.

import { Command, CommanderError } from 'commander';
import packageJson from '../../package.json' with { type: 'json' };
import { addCalls } from './calls.ts';
import { addCompletion } from './completion.ts';
import { addDatabase } from './database.ts';
import { addDoctor } from './doctor/doctor.ts';
import { addHealth } from './health.ts';
import { CommandError, wrongCallExitCode } from './output.ts';
import { addTail } from './tail.ts';
import { addToken } from './token.ts';

export function createProgram(): Command {
  const program = new Command('sobranie')
    .description('A realtime server, and what its operators do with it.')
    .version(packageJson.version)
    .exitOverride()
    .configureHelp({ showGlobalOptions: true });
  // The server itself is started before this program is made: it reads its settings from the environment alone.
  program.command('start').description('start the server, as without any command; settings come from the environment');
  addDoctor(program);
  addHealth(program);
  addTail(program);
  addCalls(program);
  addDatabase(program);
  addToken(program);
  addCompletion(program);
  for (const command of program.commands) command.exitOverride();
  return program;
}

/** Resolves with the exit code. */
export async function runProgram(args: readonly string[]): Promise<number> {
  try {
    await createProgram().parseAsync([...args], { from: 'user' });
    return 0;
  } catch (error) {
    // What was wrong is printed already; help and version end so too.
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : wrongCallExitCode;
    if (!(error instanceof CommandError)) throw error;
    if (args.includes('--json')) console.error(JSON.stringify({ error: { message: error.message } }));
    else console.error(error.message);
    return error.exitCode;
  }
}
