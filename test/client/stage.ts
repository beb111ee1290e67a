// What a case of the client's suite finds around it, in whatever runtime it runs: a client to make, and a director in the
// test process that has the server, the proxies and the tokens in hand. Nothing here belongs to Bun, Node or a browser.

import { Sobranie, type SobranieOptions } from '@sobranie/client';

/** What the director does when it is asked; each call is one request. */
export interface Director {
  /** A token of this user, with rights to all channels unless told otherwise; seconds may be over already. */
  token(claims: { readonly sub: string; readonly seconds?: number; readonly channels?: object }): string;
  /** As the backend does. `json` is data as text, which goes out as it is. */
  publish(channel: string, json: string): void;
  /** The connections of a user, by an operator's hand. */
  disconnect(user: string): void;
  /** An address that leads to the server, and to be broken by its name, the port. */
  proxy(): string;
  cut(proxy: string): void;
  /** What goes through now is swallowed, and nobody is told. */
  swallow(proxy: string): void;
  refuse(proxy: string, refuses: boolean): void;
  /** An address of a gateway that knows no WebSocket. */
  gateway(): string;
  allowWebSocket(gateway: string): void;
  /** Whether tests may take minutes. */
  isLong(): boolean;
}

type Asked = {
  readonly [Call in keyof Director]: (...args: Parameters<Director[Call]>) => Promise<ReturnType<Director[Call]>>;
};

export interface Stage extends Asked {
  readonly transport: 'websocket' | 'sse';
  /** A name that no other case uses. */
  readonly name: string;
  /** Closed after the case. With a token of a user named as the case, unless told otherwise. */
  client(url: string, options?: SobranieOptions): Sobranie;
}

export type Case = (stage: Stage) => Promise<void>;

export class Failed extends Error {}

export function equal(actual: unknown, expected: unknown, what = 'value'): void {
  const [one, other] = [actual, expected].map((value) =>
    JSON.stringify(value, (_key, member: unknown) => (typeof member === 'bigint' ? `${member}n` : member)),
  );
  if (one !== other) throw new Failed(`${what}: ${one}, expected ${other}`);
}

/** Looks again and again until it is so. */
export async function until(isSo: () => boolean, what: string, timeoutMs = 45_000): Promise<void> {
  const end = Date.now() + timeoutMs;
  while (!isSo()) {
    if (Date.now() > end) throw new Failed(`not within ${timeoutMs} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

export async function rejected(promise: Promise<unknown>): Promise<{ readonly code?: string; readonly name?: string }> {
  return promise.then(
    (value) => Promise.reject(new Failed(`resolved with ${JSON.stringify(value)}`)),
    (error: unknown) => error as { code?: string },
  );
}

export interface Outcome {
  readonly title: string;
  readonly failure: string | undefined;
}

/** Runs the cases over both transports, side by side; calls `told` as each one ends. */
export async function perform(
  cases: Readonly<Record<string, Case>>,
  director: string,
  run: string,
  platform: SobranieOptions['platform'],
  told: (outcome: Outcome) => void,
): Promise<void> {
  const ask = async (call: string, args: unknown[]): Promise<unknown> => {
    const response = await fetch(director, { method: 'POST', body: JSON.stringify({ call, args }) });
    const { value, error } = (await response.json()) as { value?: unknown; error?: string };
    if (error !== undefined) throw new Failed(`${call}: ${error}`);
    return value;
  };
  let count = 0;
  const all = Object.entries(cases).flatMap(([title, body]) =>
    (['websocket', 'sse'] as const).map(async (transport) => {
      const name = `${run}-${++count}`;
      const clients: Sobranie[] = [];
      const own = {
        transport,
        name,
        client(url: string, options: SobranieOptions = {}): Sobranie {
          const client = new Sobranie(url, {
            token: () => ask('token', [{ sub: name }]) as Promise<string>,
            transport,
            backoffMs: [200, 500],
            ...options,
            platform: { ...platform, ...options.platform },
          });
          clients.push(client);
          return client;
        },
      };
      const stage = new Proxy(own, {
        get: (target, call) =>
          call in target
            ? (target as unknown as Record<PropertyKey, unknown>)[call]
            : (...args: unknown[]) => ask(String(call), args),
      }) as unknown as Stage;
      let failure: string | undefined;
      try {
        await body(stage);
      } catch (error) {
        failure = error instanceof Error ? `${error.name}: ${error.message}\n${error.stack ?? ''}` : String(error);
      }
      for (const client of clients) client.close();
      told({ title: `${title}, ${transport}`, failure });
    }),
  );
  await Promise.all(all);
}
