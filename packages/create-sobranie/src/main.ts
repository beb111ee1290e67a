#!/usr/bin/env node
// `npm create sobranie@latest my-app`: writes an app into a new folder and says how to start it. Responsible for the
// command line alone: arguments, a question where a person can answer it, output, exit codes.
//
// Exit codes: 0 made, 1 not made, 2 wrong arguments.

import { createInterface } from 'node:readline/promises';
import { parseArgs } from 'node:util';
import { CreateError } from './create-error.ts';
import { createApp } from './create-app.ts';
import { version } from './packages.ts';

const help = `Makes an app with live data: a React page, its backend and the Sobranie server, started by one command.

  npm create sobranie@latest <folder>

The folder is new or empty; "." is this one. Its name becomes the name of the app.

  --packages <folder>   take the packages @sobranie/* from the archives in this folder
  --help                print this
  --version             print the version
`;

async function main(): Promise<number> {
  const { values, positionals } = readArguments();
  if (values.help === true) return print(help);
  if (values.version === true) return print(`${version}\n`);
  if (positionals.length > 1) throw new CreateError(`one folder, please, not ${positionals.length}`, 2);
  const folder = positionals[0] ?? (await askForFolder());
  const { path, name } = await createApp(folder, { archives: values.packages });
  const manager = packageManager();
  const steps = [...(path === '.' ? [] : [`cd ${quoted(path)}`]), `${manager} install`, `${manager} run dev`];
  return print(`Made ${name}. Start it:\n\n${steps.map((step) => `  ${step}\n`).join('')}\n`);
}

function readArguments() {
  try {
    return parseArgs({
      allowPositionals: true,
      options: {
        help: { type: 'boolean', short: 'h' },
        version: { type: 'boolean' },
        packages: { type: 'string' },
      },
    });
  } catch (error) {
    throw new CreateError(error instanceof Error ? error.message : String(error), 2);
  }
}

async function askForFolder(): Promise<string> {
  if (!process.stdin.isTTY || !process.stdout.isTTY) throw new CreateError('which folder? See --help.', 2);
  const lines = createInterface({ input: process.stdin, output: process.stdout });
  try {
    return (await lines.question('Name of the new folder: ')).trim();
  } finally {
    lines.close();
  }
}

/** The one that runs this, which is the one that the person has. */
function packageManager(): string {
  const [, name = ''] = /^(npm|pnpm|yarn|bun)\//.exec(process.env['npm_config_user_agent'] ?? '') ?? [];
  if (name !== '') return name;
  return process.versions['bun'] === undefined ? 'npm' : 'bun';
}

/** As a shell reads it back. */
function quoted(path: string): string {
  return /^[\w@%+=:,./-]+$/.test(path) ? path : `'${path.replaceAll("'", `'\\''`)}'`;
}

function print(text: string): number {
  process.stdout.write(text);
  return 0;
}

try {
  process.exitCode = await main();
} catch (error) {
  if (!(error instanceof CreateError)) throw error;
  process.stderr.write(`create-sobranie: ${error.message}\n`);
  process.exitCode = error.exitCode;
}
