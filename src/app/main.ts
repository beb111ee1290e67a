// The process: reads the settings, starts everything, prints where it is, and leaves in order on a signal.
// Exit codes: 0 after an orderly shutdown, 78 for faulty settings, 1 for anything else.

import { startNode } from './compose.ts';
import { EmbeddedPostgresError } from './embedded-error.ts';
import { createLogger } from './logger.ts';
import { readSettings, SettingsError, settingsWarnings, type Settings } from './settings.ts';

const badSettingsExitCode = 78;

function settingsOrExit(): Settings {
  try {
    return readSettings(process.env);
  } catch (error) {
    if (!(error instanceof SettingsError)) throw error;
    console.error(error.message);
    process.exit(badSettingsExitCode);
  }
}

const settings = settingsOrExit();
const log = createLogger({ level: settings.logLevel, format: settings.logFormat, node: settings.nodeId });
for (const warning of settingsWarnings(settings)) log.warn(warning);

// A rejection that nobody handles is a bug of ours, but not one that may cut every client off.
process.on('unhandledRejection', (error) => log.error({ err: error }, 'a rejection was not handled'));
process.on('uncaughtException', (error) => log.error({ err: error }, 'an exception was not caught'));

let signalled: ((name: string) => void) | undefined;
let early: string | undefined;
for (const name of ['SIGTERM', 'SIGINT'] as const) {
  process.on(name, () => {
    if (signalled === undefined) early = name;
    else signalled(name);
  });
}

try {
  const node = await startNode(settings, log);
  signalled = (name) => {
    node.shutdown.signal(name).then(
      () => process.exit(0),
      (error: unknown) => {
        log.fatal({ err: error }, 'the shutdown failed');
        process.exit(1);
      },
    );
  };
  if (early !== undefined) signalled(early);
} catch (error) {
  // Some faults of settings show only when the other nodes are asked.
  if (error instanceof SettingsError) {
    console.error(error.message);
    process.exit(badSettingsExitCode);
  }
  if (error instanceof EmbeddedPostgresError) console.error(error.message);
  else log.fatal({ err: error }, 'the server could not start');
  process.exit(1);
}
