// What the baselines on Bun share: the command they understand and a message of the same members and size as ours.
// Deliberately without checks: a baseline is meant to be the cheapest thing that could be measured.
export interface Command {
  readonly type: 'subscribe' | 'publish';
  readonly channel: string;
  readonly data?: unknown;
}

const connectionId = 'c0ffee00c0ffee00';

export function commandOf(text: string | Buffer): Command {
  return JSON.parse(String(text)) as Command;
}

export function messageText(command: Command): string {
  return JSON.stringify({
    type: 'message',
    channel: command.channel,
    data: command.data,
    at: Date.now(),
    from: { user: null, connection: connectionId },
  });
}

export function listeningLine(port: number | undefined): string {
  return `listening on http://127.0.0.1:${port}`;
}
