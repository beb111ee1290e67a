// The commands that are one call of the HTTP API: publish, channels, users, nodes and drain.

import type { Command } from 'commander';
import { CommandError, givenText, Output, WrongCall, wholeNumber } from './output.ts';
import { onServer, Server, type ServerOptions } from './server.ts';

/** A day. */
const secondsMax = 86_400;

export function addCalls(program: Command): void {
  onServer(program.command('publish'))
    .description('publish to a channel; without data, what comes on stdin')
    .argument('<channel>', 'its name', givenText)
    .argument('[data]', 'JSON')
    .option('--text', 'the data is text, not JSON')
    .option('--idempotency-key <key>', 'publishes once, however often the command is repeated')
    .action(publish);
  onServer(program.command('channels')).description('channels with subscribers, over all nodes').action(channels);
  onServer(program.command('users'))
    .description('whether a user is online, and each connection, over all nodes')
    .argument('<user>', 'as tokens name it', givenText)
    .action(users);
  onServer(program.command('nodes')).description('the nodes that are alive').action(nodes);
  onServer(program.command('drain'))
    .description('have a node drain and end, as after SIGTERM; waits until it is gone')
    .argument('<node>', 'its name, as `sobranie nodes` tells it', givenText)
    .option('--no-wait', 'only ask for it')
    .option('--timeout <seconds>', 'how long to wait', wholeNumber(0, secondsMax), 1_860)
    .action(drain);
}

interface PublishOptions extends ServerOptions {
  readonly text?: true;
  readonly idempotencyKey?: string;
}

async function publish(channel: string, given: string | undefined, options: PublishOptions): Promise<void> {
  const output = new Output(options.json === true);
  const text = given ?? (await Bun.stdin.text());
  const data = options.text === true ? JSON.stringify(text) : requireJson(text);
  const key = options.idempotencyKey === undefined ? '' : `,"key":${JSON.stringify(options.idempotencyKey)}`;
  // As text: read and printed again, large numbers would be rounded.
  const body = `{"channel":${JSON.stringify(channel)},"data":${data}${key}}`;
  const request = { member: 'channel', method: 'POST', body };
  const answer = await new Server(options).call('backend', '/realtime/publish', request);
  const { offset, epoch } = answer as { offset?: number; epoch?: string };
  const where = offset === undefined ? 'ephemeral, so without a number' : `number ${offset} of epoch ${epoch}`;
  output.result(answer, `${output.paint('green', 'published')} to ${channel}: ${where}`);
}

function requireJson(text: string): string {
  try {
    JSON.parse(text);
    return text;
  } catch {
    throw new WrongCall(`the data is no JSON: quote it like '"hello"' or '{"a": 1}', or add --text`);
  }
}

async function channels(options: ServerOptions): Promise<void> {
  const answer = (await new Server(options).call('backend', '/realtime/channels', { member: 'channels' })) as {
    channels: { channel: string; subscribers: number }[];
    incomplete?: string[];
  };
  const output = new Output(options.json === true);
  output.table(answer.channels, 'no channel has a subscriber');
  warnIncomplete(output, answer.incomplete);
}

async function users(user: string, options: ServerOptions): Promise<void> {
  const path = `/realtime/users/${encodeURIComponent(user)}`;
  const answer = (await new Server(options).call('backend', path, { member: 'connections' })) as {
    online: boolean;
    connections: { connection: string; node: string; transport: string; since: number; channels: string[] }[];
    incomplete?: string[];
  };
  const output = new Output(options.json === true);
  const rows = answer.connections.map(({ channels, since, ...rest }) => ({
    ...rest,
    since: output.json ? since : new Date(since).toISOString(),
    channels: output.json ? channels : channels.join(' '),
  }));
  output.table(rows, `${user} is not online`);
  warnIncomplete(output, answer.incomplete);
}

function warnIncomplete(output: Output, incomplete: readonly string[] | undefined): void {
  if (incomplete !== undefined)
    output.progress(`without all of ${incomplete.join(', ')}, which did not answer in time`);
}

interface NodeRow {
  readonly node: string;
  readonly connections: number;
  readonly since: number;
}

async function nodesOf(server: Server): Promise<readonly NodeRow[]> {
  const answer = (await server.call('operator', '/realtime/nodes', { member: 'nodes' })) as { nodes: NodeRow[] };
  return answer.nodes;
}

async function nodes(options: ServerOptions): Promise<void> {
  const output = new Output(options.json === true);
  const rows = await nodesOf(new Server(options));
  output.table(
    output.json
      ? rows.map((row) => ({ ...row }))
      : rows.map((row) => ({ ...row, since: new Date(row.since).toISOString() })),
    'no node is alive',
  );
}

const pollMs = 500;

async function drain(
  node: string,
  options: ServerOptions & { readonly wait: boolean; readonly timeout: number },
): Promise<void> {
  const server = new Server(options);
  const output = new Output(options.json === true);
  const [before] = (await nodesOf(server)).filter((each) => each.node === node);
  const path = `/realtime/nodes/${encodeURIComponent(node)}/drain`;
  const answer = await server.call('operator', path, { member: 'draining', method: 'POST' });
  if (!options.wait) {
    output.result(answer, `${node} drains`);
    return;
  }
  const count = before?.connections ?? 0;
  output.progress(`${node} drains ${count} connection${count === 1 ? '' : 's'}`);
  const deadline = performance.now() + options.timeout * 1_000;
  let told = before?.connections;
  for (;;) {
    await Bun.sleep(pollMs);
    // The node that is asked may be the one that drains, and the only one: then nobody answers in the end.
    const all = await nodesOf(server).catch(() => []);
    // A worker that was drained comes back under its name, as another run.
    const now = all.find((each) => each.node === node && each.since === before?.since);
    if (now === undefined) break;
    if (performance.now() > deadline) throw new CommandError(`${node} is still there after ${options.timeout} seconds`);
    if (now.connections !== told) output.progress(`${now.connections} connections are left`);
    told = now.connections;
  }
  output.result({ node, gone: true }, `${output.paint('green', node)} is gone`);
}
