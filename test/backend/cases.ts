// The suite of what backends call, in whatever runtime it runs: a real server is at `url`, and every case has names of
// its own. Nothing here belongs to Bun or Node.

import { Backend, BackendError, signToken, type Fetch } from '@sobranie/server';

export interface Stage {
  readonly url: string;
  readonly apiKey: string;
  readonly secret: string;
  /** No other case, and no other runtime, uses this name. */
  readonly name: string;
  readonly backend: Backend;
}

export type Case = (stage: Stage) => Promise<void>;

class Failed extends Error {}

function equal(actual: unknown, expected: unknown): void {
  const [one, other] = [JSON.stringify(actual), JSON.stringify(expected)];
  if (one !== other) throw new Failed(`${one}, expected ${other}`);
}

async function rejected(promise: Promise<unknown>): Promise<BackendError> {
  const error = await promise.then(
    (value) => new Failed(`resolved with ${JSON.stringify(value)}`),
    (reason: unknown) => reason,
  );
  if (error instanceof BackendError) return error;
  throw error;
}

/** Reads an event stream until it has seen all the texts. */
async function untilSeen(response: Response, texts: readonly string[]): Promise<string> {
  if (response.body === null) throw new Failed('the stream has no body');
  const decoder = new TextDecoder();
  let seen = '';
  for await (const chunk of response.body) {
    seen += decoder.decode(chunk as Uint8Array, { stream: true });
    if (texts.every((text) => seen.includes(text))) return seen;
  }
  throw new Failed(`the stream ended after ${seen}`);
}

/** Answers as told, then as the server does. */
function failing(answers: (() => Response | Promise<Response>)[]): {
  readonly fetch: Fetch;
  readonly bodies: string[];
} {
  const bodies: string[] = [];
  const send: Fetch = async (request) => {
    bodies.push(await request.clone().text());
    const answer = answers.shift();
    return answer === undefined ? fetch(request) : answer();
  };
  return { fetch: send, bodies };
}

const refusal =
  (code: string, status: number, retryable: boolean, headers: Record<string, string> = {}) =>
  () =>
    Response.json({ error: { code, message: code, retryable } }, { status, headers });

export const cases: Readonly<Record<string, Case>> = {
  async 'publishes, and a key publishes once'({ backend, name }) {
    const first = await backend.publish(name, { text: 'héllo' }, { key: 'one' });
    equal(first.offset, 1);
    equal(await backend.publish(name, { text: 'again' }, { key: 'one' }), first);
    equal((await backend.publish(name, [1, null])).offset, 2);
    const { messages, complete, offset } = await backend.history(name);
    equal([messages.map(({ data }) => data), complete, offset], [[{ text: 'héllo' }, [1, null]], true, 2]);
    const since = await backend.history(name, { since: { epoch: first.epoch ?? '', offset: 1 }, limit: 10 });
    equal(
      since.messages.map((message) => message.offset),
      [2],
    );
  },

  async 'publishes to several channels'({ backend, name }) {
    const published = await backend.publishAll([`${name}:a`, `${name}:b`], 7);
    equal(
      published.map(({ channel, offset }) => [channel, offset]),
      [
        [`${name}:a`, 1],
        [`${name}:b`, 1],
      ],
    );
  },

  async 'notifies, and hands out tickets and tokens that open streams'({ backend, name, url, secret }) {
    const user = `${name} ü/@`;
    const { ticket } = await backend.ticket({ user, channels: { [name]: ['subscribe', 'presence'] } });
    const token = await signToken({ sub: user, channels: { [name]: ['subscribe'] } }, { secret });
    const own = `user:${encodeURIComponent(user).replace('%2F', '/').replace('%40', '@')}`;
    for (const credential of [ticket, token]) {
      const abort = new AbortController();
      const query = new URLSearchParams({ channels: `${name},${own}`, token: credential });
      const response = await fetch(`${url}/realtime/events?${query.toString()}`, { signal: abort.signal });
      equal(response.status, 200);
      const published = await backend.notify(user, { for: credential.slice(-5) });
      equal(published.channel, own);
      await untilSeen(response, [credential.slice(-5)]);
      abort.abort();
    }
    const used = await fetch(
      `${url}/realtime/events?${new URLSearchParams({ channels: name, token: ticket }).toString()}`,
    );
    equal(used.status, 401);
    await used.text();
  },

  async 'sees users and channels, sends to one connection, disconnects'({ backend, name, url, secret }) {
    const token = await signToken({ sub: name, channels: { [`${name}*`]: ['subscribe', 'presence'] } }, { secret });
    const query = new URLSearchParams({ channels: name, token, presence: '1' });
    const response = await fetch(`${url}/realtime/events?${query.toString()}`);
    const { online, connections } = await backend.user(name);
    equal([online, connections.length, connections[0]?.channels, connections[0]?.transport], [true, 1, [name], 'sse']);
    equal(
      (await backend.channels()).filter(({ channel }) => channel === name),
      [{ channel: name, subscribers: 1 }],
    );
    const { count, members } = await backend.presence(name);
    equal([count, members[0]?.user], [1, name]);
    await backend.send(connections[0]?.connection ?? '', { only: 'you' });
    equal((await backend.reauthorize(name)).unsubscribed, 0);
    equal(await backend.subscribe(name, `${name}:more`).then((answer) => answer.user), name);
    equal(await backend.unsubscribe(name, `${name}:more`).then((answer) => answer.user), name);
    equal((await backend.disconnect(name)).connections, 1);
    equal((await rejected(backend.send(connections[0]?.connection ?? '', 1))).code, 'not_subscribed');
    equal((await backend.user(name)).online, false);
    // What was sent before the end has arrived. Reading comes last, for it ends the stream.
    await untilSeen(response, ['"only":"you"']);
  },

  async 'says what was wrong, and sends it once'({ name, url, apiKey }) {
    const sent = failing([]);
    const backend = new Backend(`${url}/`, { apiKey, fetch: sent.fetch });
    const codes = await Promise.all([
      rejected(backend.publish('not a name', 1)),
      rejected(backend.publish('$system', 1)),
      rejected(backend.publish(name, undefined)),
      rejected(backend.publish(name, 'x'.repeat(70_000))),
      rejected(backend.publish(name, 1, { key: 'x'.repeat(65) })),
      rejected(backend.disconnect('')),
      rejected(backend.user('..')),
      rejected(new Backend(url, { apiKey: 'another key, as long as a key is', fetch: sent.fetch }).publish(name, 1)),
    ]);
    equal(
      codes.map(({ code, status, retryable }) => [code, status ?? 0, retryable]),
      [
        ['bad_channel', 400, false],
        ['forbidden', 403, false],
        ['bad_request', 400, false],
        ['too_large', 413, false],
        ['bad_request', 400, false],
        ['bad_request', 0, false],
        ['bad_request', 0, false],
        ['unauthorized', 401, false],
      ],
    );
    equal(sent.bodies.length, 6);
    const circle: { self?: unknown } = {};
    circle.self = circle;
    for (const data of [circle, 1n]) {
      const error: unknown = await backend.publish(name, data).catch((reason: unknown) => reason);
      equal(error instanceof TypeError, true);
    }
  },

  async 'retries what may be retried, with the same key, and gives up in time'({ name, url, apiKey }) {
    const lost = () => Promise.reject(new TypeError('the network failed'));
    const page = () => new Response('<h1>Bad gateway</h1>', { status: 502 });
    const sent = failing([refusal('unavailable', 503, true), lost]);
    const patient = new Backend(url, { apiKey, fetch: sent.fetch });
    equal((await patient.publish(name, 'once')).offset, 1);
    equal(sent.bodies.length, 3);
    equal(new Set(sent.bodies).size, 1);
    // An answer that was lost after the server had taken the publication.
    const swallowing = failing([]);
    let swallowed = false;
    const unlucky = new Backend(url, {
      apiKey,
      fetch: async (request) => {
        const response = await swallowing.fetch(request);
        if (swallowed) return response;
        swallowed = true;
        throw new TypeError('the connection was reset');
      },
    });
    equal((await unlucky.publish(name, 'twice?')).offset, 2);
    equal((await unlucky.history(name)).messages.length, 2);
    for (const [answer, code] of [
      [page, 'unreachable'],
      [lost, 'unreachable'],
      [refusal('rate_limited', 429, true, { 'retry-after': '3600' }), 'rate_limited'],
      [() => new Response('<p>A site', { status: 200 }), 'unreachable'],
    ] as const) {
      const never = failing([answer, answer, answer, answer]);
      equal((await rejected(new Backend(url, { apiKey, fetch: never.fetch, retries: 1 }).channels())).code, code);
    }
  },

  async 'has a time limit, and a signal ends a call'({ url, apiKey }) {
    const silent: Fetch = ({ signal }) =>
      new Promise((_resolve, reject) =>
        signal.addEventListener('abort', () => reject(new DOMException('aborted', 'AbortError'))),
      );
    const late = await rejected(new Backend(url, { apiKey, fetch: silent, timeoutMs: 20, retries: 0 }).channels());
    equal([late.code, late.retryable], ['timeout', true]);
    const reason = new Error('the request of the user ended');
    const abort = new AbortController();
    const backend = new Backend(url, { apiKey, fetch: silent });
    const ended = backend.publish('any', 1, { signal: abort.signal }).catch((error: unknown) => error);
    abort.abort(reason);
    equal((await ended) === reason, true);
    equal((await backend.channels({ signal: abort.signal }).catch((error: unknown) => error)) === reason, true);
    // Of `localhost:3000` the scheme is `localhost:`, and "unreachable" was all that was said.
    for (const address of ['no address', 'localhost:3000', '']) {
      let refusal: unknown;
      try {
        refusal = new Backend(address);
      } catch (error) {
        refusal = error;
      }
      equal(
        String(refusal),
        `TypeError: The address of the server begins with http:// or https://, unlike "${address}".`,
      );
    }
  },

  // A runtime runs a timer at once that is longer than 2^31 ms, or refuses it: "never" was now.
  async 'has no time limit, if that is wanted'({ url, apiKey, name }) {
    for (const timeoutMs of [Infinity, 3e9, 10_000.5]) {
      const backend = new Backend(url, { apiKey, timeoutMs, retries: 0 });
      equal((await backend.publish(name, timeoutMs)).channel, name);
    }
  },

  async 'says where it got no answer, and why'({ apiKey, name }) {
    const backend = new Backend('http://127.0.0.1:1/under/here', { apiKey, retries: 0 });
    const { code, message } = await rejected(backend.publish(name, 1));
    equal(
      [code, message.startsWith('no answer from http://127.0.0.1:1: '), /fetch failed/.test(message)],
      ['unreachable', true, false],
    );
  },
};

/** Runs the cases side by side; calls `told` as each one ends. */
export async function perform(
  given: { readonly url: string; readonly apiKey: string; readonly secret: string; readonly run: string },
  told: (outcome: { readonly title: string; readonly failure: string }) => void,
): Promise<void> {
  const { url, apiKey } = given;
  const all = Object.entries(cases).map(async ([title, body], index) => {
    const stage = { ...given, name: `${given.run}-${index}`, backend: new Backend(url, { apiKey }) };
    let failure = '';
    try {
      await body(stage);
    } catch (error) {
      failure = error instanceof Error ? `${error.name}: ${error.message}\n${error.stack ?? ''}` : String(error);
    }
    told({ title, failure });
  });
  await Promise.all(all);
}
