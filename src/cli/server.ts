// The server that a command speaks to, by its HTTP API. Keys come from options or from the environment.

import type { Command } from 'commander';
import { CommandError } from './output.ts';

export interface ServerOptions {
  readonly url?: string;
  readonly key?: string;
  readonly json?: true;
}

/** Adds the options of every command that speaks to a server. */
export function onServer(command: Command): Command {
  return command
    .option('-u, --url <url>', 'the server (SOBRANIE_URL)', process.env['SOBRANIE_URL'] ?? 'http://localhost:3000')
    .option('-k, --key <key>', 'the key of a backend or of the operator (API_KEY, ADMIN_KEY)')
    .option('--json', 'one JSON object per line, for programs');
}

export type Caller = 'backend' | 'operator';

export class Server {
  readonly url: string;
  readonly #key: string | undefined;

  constructor({ url = '', key }: ServerOptions) {
    if (!URL.canParse(url) || !/^https?:$/.test(new URL(url).protocol)) {
      throw new CommandError(`"${url}" is no address; write it like https://live.example.com`);
    }
    this.url = url.replace(/\/+$/, '');
    this.#key = key;
  }

  keyOf(caller: Caller): string | undefined {
    const names = { backend: 'API_KEY', operator: 'ADMIN_KEY' };
    return this.#key ?? (process.env[names[caller]] || undefined);
  }

  /** The answer's body. Throws `CommandError` with what the server or the network said. */
  async call(caller: Caller, path: string, request: { method?: string; body?: string } = {}): Promise<unknown> {
    const key = this.keyOf(caller);
    let response: Response;
    try {
      response = await fetch(this.url + path, {
        ...request,
        headers: {
          'content-type': 'application/json',
          ...(key === undefined ? {} : { authorization: `Bearer ${key}` }),
        },
        signal: AbortSignal.timeout(callMsMax),
      });
    } catch (error) {
      throw new CommandError(`${this.url} does not answer: ${reasonOf(error)}`);
    }
    const text = await response.text();
    if (response.ok) return JSON.parse(text);
    throw new CommandError(`${this.url} answered ${response.status}: ${messageOf(text)}`);
  }
}

const callMsMax = 15_000;

export function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** The server's own message, or the beginning of what something else answered. */
function messageOf(text: string): string {
  try {
    const { error } = JSON.parse(text) as { error?: { message?: unknown } };
    if (typeof error?.message === 'string') return error.message;
  } catch {
    // It is no JSON, so no answer of this server: a gateway's page.
  }
  return text
    .replace(/<[^>]*>/g, ' ')
    .replace(/\s+/g, ' ')
    .trim()
    .slice(0, 200);
}
