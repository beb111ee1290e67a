// The server that a command speaks to, by its HTTP API. Keys come from options or from the environment.

import type { Command } from 'commander';
import { CommandError, WrongCall } from './output.ts';

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
    // A query or a fragment would swallow the paths that are added.
    if (!URL.canParse(url) || !/^https?:$/.test(new URL(url).protocol) || /[?#]/.test(url)) {
      throw new WrongCall(`"${url}" is no address; write it like https://live.example.com`);
    }
    this.url = url.replace(/\/+$/, '');
    this.#key = key;
  }

  keyOf(caller: Caller): string | undefined {
    const names = { backend: 'API_KEY', operator: 'ADMIN_KEY' };
    return this.#key ?? (process.env[names[caller]] || undefined);
  }

  /**
   * The answer's body, which has this member. Throws `CommandError` with what the server or the network said, or what
   * answers in the server's place.
   */
  async call(
    caller: Caller,
    path: string,
    { member, ...request }: { member: string; method?: string; body?: string },
  ): Promise<unknown> {
    const key = this.keyOf(caller);
    const response = await this.#fetch(path, {
      ...request,
      headers: {
        'content-type': 'application/json',
        ...(key === undefined ? {} : { authorization: `Bearer ${key}` }),
      },
    });
    const { status, ok } = response;
    const text = await this.#textOf(response);
    const body = membersOf(text);
    if (ok && Object.hasOwn(body, member)) return body;
    if (ok) throw new CommandError(`${this.url} is no Sobranie server: it answered ${messageOf(text) || 'nothing'}`);
    throw new CommandError(`${this.url} answered ${status}: ${messageOf(text)}`);
  }

  /** Throws `CommandError` when nothing answers at this address, or something else than a Sobranie server. */
  async reach(): Promise<void> {
    // Without channels it is refused, by the server itself, before any right is asked for.
    const response = await this.#fetch('/realtime/events', {});
    const text = await this.#textOf(response);
    if (Object.hasOwn(membersOf(text), 'error')) return;
    throw new CommandError(
      `${this.url} is no Sobranie server: it answered ${response.status}: ${messageOf(text) || 'nothing'}`,
    );
  }

  async #fetch(path: string, request: RequestInit): Promise<Response> {
    try {
      // Followed, a POST would become a GET, and its key would be left out.
      const signal = AbortSignal.timeout(callMsMax);
      const response = await fetch(this.url + path, { ...request, redirect: 'manual', signal });
      const place = response.headers.get('location');
      if (response.status < 300 || response.status > 399 || place === null) return response;
      throw new CommandError(`${this.url} answered ${response.status}: it leads to ${place}; name that address`);
    } catch (error) {
      throw this.#unanswered(error);
    }
  }

  async #textOf(response: Response): Promise<string> {
    return await response.text().catch((error: unknown) => {
      throw this.#unanswered(error);
    });
  }

  #unanswered(error: unknown): CommandError {
    return error instanceof CommandError ? error : new CommandError(`${this.url} does not answer: ${reasonOf(error)}`);
  }
}

/** Those of a JSON object; none of any other text. */
export function membersOf(text: string): object {
  try {
    const body: unknown = JSON.parse(text);
    if (typeof body === 'object' && body !== null && !Array.isArray(body)) return body;
  } catch {
    // It is no JSON, so no answer of this server: a gateway's page.
  }
  return {};
}

const callMsMax = 15_000;

export function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** The server's own message, or the beginning of what something else answered. */
function messageOf(text: string): string {
  const { error } = membersOf(text) as { error?: { message?: unknown } };
  if (typeof error?.message === 'string') return error.message;
  return text
    .replace(/<[^>]*>/g, ' ')
    .replace(/\s+/g, ' ')
    .trim()
    .slice(0, 200);
}
