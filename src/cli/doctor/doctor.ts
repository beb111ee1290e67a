// `sobranie doctor`: goes to a server through whatever stands before it, tries what clients need, and names the setting
// of the gateway that is wrong.

import type { Command } from 'commander';
import { CommandError, Output, wholeNumber } from '../output.ts';
import { Server, reasonOf, type ServerOptions } from '../server.ts';
import {
  checkCompression,
  checkDelay,
  checkExposure,
  checkNodes,
  checkOrigin,
  checkResume,
  checkStream,
  checkToken,
  checkUpgrade,
  reach,
} from './checks.ts';
import { fail, skip, type Finding, type Outcome } from './finding.ts';
import { mending, recognise, type GatewayName } from './gateways.ts';
import { checkInside } from './inside.ts';
import { checkSilence } from './silence.ts';
import { Visit, type SeenRequest } from './visit.ts';

interface DoctorOptions extends ServerOptions {
  readonly adminKey?: string;
  readonly token?: string;
  readonly idle: number;
}

export function addDoctor(program: Command): void {
  program
    .command('doctor')
    .description('try what clients need, through whatever stands before the server, and name the setting that is wrong')
    .argument('<url>', 'the address that clients use, such as https://live.example.com')
    .option('-k, --key <key>', 'the key of a backend (API_KEY): with it, publishing and resuming are tried')
    .option('--admin-key <key>', 'the key of the operator (ADMIN_KEY): with it, what nodes see is checked')
    .option('-t, --token <token>', 'a user’s token (SOBRANIE_TOKEN)')
    .option(
      '--idle <seconds>',
      'how long to watch silent connections; 200 finds what 40 does not',
      wholeNumber(0, 86_400),
      40,
    )
    .option('--json', 'one JSON object per line, for programs')
    .action(doctor);
}

/** They would only wait for what does not come. */
const needEvents: ReadonlySet<string> = new Set(['compression', 'delay', 'resume']);

const marks: Readonly<Record<Outcome, readonly [sign: string, style: 'green' | 'yellow' | 'red' | 'dim']>> = {
  ok: ['✓', 'green'],
  warn: ['!', 'yellow'],
  fail: ['✗', 'red'],
  skip: ['–', 'dim'],
};

async function doctor(url: string, options: DoctorOptions): Promise<void> {
  const output = new Output(options.json === true);
  const server = new Server({ ...options, url });
  const parts = {
    url: server.url,
    apiKey: server.keyOf('backend'),
    adminKey: options.adminKey ?? (process.env['ADMIN_KEY'] || undefined),
    token: options.token ?? (process.env['SOBRANIE_TOKEN'] || undefined),
  };
  const visit = new Visit(parts);
  const first = await reach(visit).catch((error: unknown) => {
    throw new CommandError(`${server.url}: ${reasonOf(error)}`);
  });
  const gateway = await recognise(server.url, first.exchange.headers);
  let faults = 0;
  const report = (findings: readonly Finding[]): void => {
    for (const finding of findings) {
      if (finding.outcome === 'fail') faults++;
      const mend = finding.fault === undefined ? undefined : mending(finding.fault, gateway);
      output.result(
        { ...finding, ...(mend === undefined ? {} : { gateway: gateway ?? null, mend }) },
        line(output, finding, gateway, mend),
      );
    }
  };
  output.progress(gateway === undefined ? 'no gateway that is known by its answers' : `behind ${gateway}`);
  report(first.findings);
  const seen = await seenOf(visit);
  const steps: readonly (readonly [string, () => Promise<Finding | readonly Finding[]>])[] = [
    ['inside', () => checkInside(visit, seen)],
    ['websocket', () => checkUpgrade(visit, seen)],
    ['stream', () => checkStream(visit)],
    ['compression', () => checkCompression(visit)],
    ['delay', () => checkDelay(visit)],
    ['resume', () => checkResume(visit)],
    ['nodes', () => checkNodes(visit)],
    ['origin', () => checkOrigin(visit)],
    ['token', () => checkToken(visit)],
    ['metrics', () => checkExposure(visit)],
    ['idle', () => silence(visit, parts, options.idle, output)],
  ];
  let isBuffered = false;
  for (const [name, run] of steps) {
    if (isBuffered && needEvents.has(name)) {
      report([skip(name, 'not tried: events do not come')]);
      continue;
    }
    try {
      const findings = [await run()].flat();
      isBuffered ||= findings.some(({ fault }) => fault === 'buffering');
      report(findings);
    } catch (error) {
      report([fail(name, reasonOf(error))]);
    }
  }
  if (faults > 0) throw new CommandError(`${faults} ${faults === 1 ? 'check has' : 'checks have'} failed`);
}

function silence(visit: Visit, parts: Visit['options'], seconds: number, output: Output): Promise<readonly Finding[]> {
  output.progress(`watching silent connections for ${seconds} s`);
  return checkSilence(visit, new Visit(parts), seconds);
}

/** With the headers of an upgrade, so that the answer shows whether they arrive. */
async function seenOf(visit: Visit): Promise<SeenRequest | undefined> {
  const plain = await visit.seen().catch(() => undefined);
  const upgrade = await visit.seen({ Connection: 'Upgrade', Upgrade: 'websocket' }).catch(() => undefined);
  if (plain === undefined) return undefined;
  const passed = upgrade?.headers['upgrade'];
  return { ...plain, headers: { ...plain.headers, ...(passed === undefined ? {} : { upgrade: passed }) } };
}

function line(
  output: Output,
  { check, outcome, message }: Finding,
  gateway: GatewayName | undefined,
  mend: string | undefined,
): string {
  const [sign, style] = marks[outcome];
  const text = `${output.paint(style, `${sign} ${check.padEnd(14)}`)} ${message}`;
  if (mend === undefined) return text;
  return `${text}\n${' '.repeat(17)}${output.paint('bold', `${gateway ?? 'mend'}: ${mend}`)}`;
}
