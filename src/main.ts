// The process: reads the settings, starts everything, prints where it is, and shuts down in order on a signal. What it
// starts is a node, the keeper of several worker processes, or one of these workers.
// Exit codes: 0 after an orderly shutdown, 2 for arguments, 78 for faulty settings, 1 for anything else.

import './app/bun-version.ts';
import { announce } from './app/banner.ts';
import { startNode } from './app/compose.ts';
import { engines } from './app/engines.ts';
import { StartInterrupted } from './app/interruption.ts';
import { EmbeddedPostgresError } from './embedded/embedded-error.ts';
import { createLogger, type Logger } from './app/logger.ts';
import { openRulesFile } from './settings/rules-file.ts';
import type { Running } from './app/running.ts';
import { shutdownSignals } from './app/signals.ts';
import { readSettings, SettingsError, settingsWarnings, type Settings } from './settings/settings.ts';
import { StartFault } from './app/start-fault.ts';
import { startWorker, workerNumber } from './workers/link.ts';
import { WorkerEndedEarly } from './workers/process.ts';
import { startWorkers } from './workers/keeper.ts';

const badSettingsExitCode = 78;
const wrongCallExitCode = 2;

async function settingsOrExit(): Promise<Settings> {
  try {
    return readSettings(process.env, engines);
  } catch (error) {
    if (!(error instanceof SettingsError)) throw error;
    // The list holds the faults of the rules file too, so that nobody has to start twice to see them.
    const configFile = process.env['CONFIG_FILE'] || undefined;
    const rules: unknown = await openRulesFile({ configFile }).catch((fault: unknown) => fault);
    console.error(
      rules instanceof SettingsError ? new SettingsError([...error.faults, ...rules.faults]).message : error.message,
    );
    process.exit(badSettingsExitCode);
  }
}

async function startAlone(settings: Settings, log: Logger): Promise<Running> {
  const { url, shutdown, database } = await startNode(settings, log, { interrupted: interruption.signal });
  announce({ url, settings, psql: database?.psql, databaseUrl: database?.printedUrl }, log);
  const ended = Promise.withResolvers<void>();
  return {
    signal: (name) => void shutdown.signal(name).then(ended.resolve, ended.reject),
    ended: ended.promise,
  };
}

// `bun run start --port 3001` would otherwise listen somewhere else than its caller thinks.
const [argument] = process.argv.slice(2).filter((each) => each !== 'start');
if (argument !== undefined) {
  console.error(
    `"${argument}": the server takes no arguments. Its settings come from the environment: PORT=3001 bun run start`,
  );
  process.exit(wrongCallExitCode);
}
const worker = workerNumber();
const given = await settingsOrExit();
const settings = worker === undefined ? given : { ...given, nodeId: `${given.nodeId}-${worker}` };
const log = createLogger({ level: settings.logLevel, format: settings.logFormat, node: settings.nodeId });
if (worker === undefined) for (const warning of settingsWarnings(settings)) log.warn(warning);

// An unhandled rejection is a bug of ours, but it must not cut every client off.
process.on('unhandledRejection', (error) => log.error({ err: error }, 'a rejection was not handled'));
process.on('uncaughtException', (error) => log.error({ err: error }, 'an exception was not caught'));

let running: Running | undefined;
let early: string | undefined;
const interruption = new AbortController();
for (const name of shutdownSignals()) {
  process.on(name, () => {
    if (running !== undefined) return running.signal(name);
    early = name;
    // What a worker does at a signal its keeper decides.
    if (worker === undefined) interruption.abort();
  });
}

async function start(): Promise<Running> {
  // Faulty rules stop the start before any part of it, in every kind of process.
  await openRulesFile(settings);
  if (worker !== undefined) return startWorker(settings, log);
  return settings.workers > 1 ? startWorkers(settings, log, interruption.signal) : startAlone(settings, log);
}

function failToStart(error: unknown): never {
  if (error instanceof WorkerEndedEarly) {
    console.error(error.message);
    process.exit(error.exitCode);
  }
  // Some faults of settings are found only by asking the other nodes.
  if (error instanceof SettingsError) {
    console.error(error.message);
    process.exit(badSettingsExitCode);
  }
  if (error instanceof EmbeddedPostgresError) console.error(error.message);
  // A stack would hide the sentence that helps.
  else if (error instanceof StartFault && settings.logFormat === 'pretty') {
    console.error(`The server could not start.\n  ${error.message}`);
  } else if (error instanceof StartFault) log.fatal(`the server could not start: ${error.message}`);
  else log.fatal({ err: error }, 'the server could not start');
  process.exit(1);
}

try {
  running = await start();
} catch (error) {
  if (!(error instanceof StartInterrupted)) failToStart(error);
  log.info({ signal: early }, 'shut down before the start was complete');
  process.exit(0);
}
if (early !== undefined) running.signal(early);
try {
  await running.ended;
} catch (error) {
  log.fatal({ err: error }, 'the shutdown failed');
  process.exit(1);
}
process.exit(0);
