// `sobranie tail`: what comes on channels, until it is interrupted. It is a client like any: it reconnects, resumes, and
// says where something may be missing.

import type { Command } from 'commander';
import { printExact } from '../../packages/client/src/exact-json.ts';
import { Sobranie } from '../../packages/client/src/index.ts';
import { CommandError, givenText, Output, wholeNumber } from './output.ts';
import { onServer, Server, type ServerOptions } from './server.ts';

interface TailOptions extends ServerOptions {
  readonly token?: string;
  readonly user: string;
  readonly history?: number;
  readonly presence?: true;
  readonly sse?: true;
  readonly count?: number;
}

export function addTail(program: Command): void {
  onServer(program.command('tail'))
    .description('print what comes on channels')
    .argument('<channels...>', 'their names', eachGiven)
    .option('-t, --token <token>', 'a user’s token (SOBRANIE_TOKEN); without one, a ticket by the API key')
    .option('--user <user>', 'the user of that ticket', 'sobranie-tail')
    .option('--history <number>', 'first so many of those that are kept', wholeNumber(1, 1_000))
    .option('--presence', 'also who joins and leaves')
    .option('--sse', 'over an event stream instead of a WebSocket')
    .option('-n, --count <number>', 'end after so many messages', wholeNumber(1, 1_000_000_000))
    .action(tail);
}

function eachGiven(name: string, before: readonly string[] = []): string[] {
  return [...before, givenText(name)];
}

async function tail(channels: readonly string[], options: TailOptions): Promise<void> {
  const output = new Output(options.json === true);
  const server = new Server(options);
  const token = (): Promise<string | null> => tokenOf(server, channels, options);
  // What cannot be had, the server or a token, is said at once. What was had is tried for ever.
  await server.reach();
  await token();
  const client = new Sobranie(server.url, {
    token,
    transport: options.sse === true ? 'sse' : 'auto',
    numbers: 'bigint',
  });
  const ended = Promise.withResolvers<void>();
  let left = options.count ?? Number.POSITIVE_INFINITY;
  const show = (channel: string, message: { offset?: number | undefined; at: number; data: unknown }): void => {
    if (left <= 0) return;
    output.result({ channel, ...message }, lineOf(output, channel, message));
    if (--left <= 0) ended.resolve();
  };
  client.on('status', ({ state, error }) => {
    output.progress(error === undefined ? state : `${state}: ${error.message}`);
    if (state === 'closed') ended.reject(new CommandError(error?.message ?? 'the server ended the connection'));
  });
  for (const name of channels) {
    const channel = client.channel(name);
    channel.on('failed', (error) => ended.reject(new CommandError(`${name}: ${error.message}`)));
    channel.on('gap', (gap) => {
      output.result({ ...gap, channel: name, gap: true }, output.paint('red', `${name} gap: ${gap.reason}`));
    });
    if (options.presence === true) {
      for (const event of ['join', 'leave', 'update'] as const) {
        channel.on(event, (member) =>
          output.result({ channel: name, event, member }, `${name} ${event} ${member.user}`),
        );
      }
    }
    if (options.history !== undefined) {
      const { messages, ...head } = await channel.history({ limit: options.history });
      for (const message of messages) show(name, message);
      channel.subscribe((message) => show(name, message), { since: head });
    } else {
      channel.subscribe((message) => show(name, message));
    }
  }
  process.once('SIGINT', () => ended.resolve());
  process.once('SIGTERM', () => ended.resolve());
  try {
    await ended.promise;
  } finally {
    client.close();
  }
}

function lineOf(
  output: Output,
  channel: string,
  { offset, at, data }: { offset?: number | undefined; at: number; data: unknown },
): string {
  const time = output.paint('dim', new Date(at).toISOString().slice(11, 23));
  const number = offset === undefined ? '' : ` ${output.paint('cyan', `#${offset}`)}`;
  return `${time} ${channel}${number} ${printExact(data)}`;
}

async function tokenOf(server: Server, channels: readonly string[], options: TailOptions): Promise<string | null> {
  const token = options.token ?? process.env['SOBRANIE_TOKEN'];
  if (token !== undefined && token !== '') return token;
  if (server.keyOf('backend') === undefined) return null;
  const rights = Object.fromEntries(channels.map((channel) => [channel, ['subscribe', 'history', 'presence']]));
  const expires = Math.floor(Date.now() / 1_000) + 3_600;
  const body = JSON.stringify({ user: options.user, channels: rights, expires });
  const answer = await server.call('backend', '/realtime/ticket', { member: 'ticket', method: 'POST', body });
  return (answer as { ticket: string }).ticket;
}
