// What every source must keep, whatever the broker: each message becomes a publication once, in the partition's order,
// also when the node that reads it is killed; what cannot be published is parked; a broker that is away stops nothing
// else. The log is looked at in the database, where a hole, a repeat and a wrong order are all seen.

import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import postgres from 'postgres';
import { WebSocketClient } from '../support/clients.ts';
import { startNode, stopNodes } from '../support/nodes.ts';
import { createDatabase, type TestDatabase } from '../support/postgres.ts';
import type { Environment, RunningServer } from '../support/process.ts';
import type { Proxy } from '../support/proxy.ts';
import { randomFrom, seed } from '../support/random.ts';
import { TestRules } from '../support/rules-file.ts';
import { until } from '../support/tcp-client.ts';

const long = process.env['LONG'] === '1';

export interface SourceHarness {
  /** Of the kind and of where to read, as source text: `redisStream: { key: 'orders', url: '…'`, left open. */
  config(what: string): string;
  /** Between a reader and the broker, where `proxied` is a `config` that leads through it. */
  readonly proxy: Proxy;
  proxied(what: string): string;
  /** Makes what is read, where somebody has to. */
  prepare(what: string): Promise<void>;
  /** Resolves when the broker has stored them, in order. Strings are texts, which need not be JSON. */
  send(what: string, bodies: readonly (string | Uint8Array)[]): Promise<void>;
  /** What was not committed comes again, also where it lies before the mark. */
  readonly bringsAgain: boolean;
  /** It is killed also where time is short. */
  readonly startsFast: boolean;
  /** SIGKILL. What was stored is there again after a start. */
  kill9(): Promise<void>;
  start(): Promise<void>;
  close(): Promise<void>;
}

/** Brokers may take long to start. */
const startMs = 500_000;

export class SourceStage {
  readonly database: TestDatabase;
  readonly sql: postgres.Sql;
  readonly nodes: RunningServer[] = [];
  readonly rules: TestRules;
  readonly #environment: Environment;

  private constructor(database: TestDatabase, rules: TestRules, environment: Environment) {
    this.database = database;
    this.rules = rules;
    this.#environment = environment;
    this.sql = postgres(database.url, { max: 2, onnotice: () => undefined });
  }

  /** `sources` is source text, a list without its brackets. */
  static async open(sources: string, environment: Environment = {}): Promise<SourceStage> {
    const database = await createDatabase({ migrated: true });
    const history = 'history: { size: 1_000_000, seconds: 36_000 }';
    const rules = new TestRules(`{ channels: '*', ${history} }`, {}, `sources: [${sources}]`);
    return new SourceStage(database, rules, environment);
  }

  async startNode(): Promise<RunningServer> {
    const node = await startNode({
      DATABASE_URL: this.database.url,
      CONFIG_FILE: this.rules.path,
      ...this.#environment,
    });
    this.nodes.push(node);
    return node;
  }

  async kill(node: RunningServer): Promise<void> {
    this.nodes.splice(this.nodes.indexOf(node), 1);
    await node.kill9();
  }

  /** In order. */
  async stopNode(node: RunningServer): Promise<void> {
    this.nodes.splice(this.nodes.indexOf(node), 1);
    await stopNodes([node]);
  }

  /** The node that reads a partition of the source now. */
  async reader(source: string): Promise<RunningServer> {
    for (;;) {
      for (const node of this.nodes) {
        if (Number(await metric(node, `sobranie_source_partitions{source="${source}"}`)) > 0) return node;
      }
      await Bun.sleep(50);
    }
  }

  /** Data of the channel's log, by offset. */
  async log(channel: string): Promise<readonly unknown[]> {
    const rows = await this.sql<{ data: string }[]>`
      select data from realtime.publications where channel = ${channel} order by "offset"`;
    return rows.map(({ data }) => JSON.parse(data) as unknown);
  }

  async logged(channel: string): Promise<number> {
    const [row] = await this.sql`select count(*)::int as count from realtime.publications where channel = ${channel}`;
    return Number(row?.['count']);
  }

  async close(): Promise<void> {
    await stopNodes(this.nodes);
    await this.sql.end({ timeout: 1 });
    await this.database.drop();
  }
}

/** A sample of the scrape; undefined where there is none. */
export async function metric(node: RunningServer, sample: string): Promise<string | undefined> {
  const text = await (await fetch(`${node.url}/metrics`, { signal: AbortSignal.timeout(20_000) })).text();
  return text
    .split('\n')
    .find((line) => line.startsWith(`${sample} `))
    ?.slice(sample.length + 1);
}

/** What a broker has beside what all have. */
export interface Further {
  /** Sources of its own, as source text, each with a comma behind it. */
  readonly sources: (harness: SourceHarness) => Promise<string>;
  readonly tests: (stage: () => SourceStage) => void;
}

export function testSource(kind: string, start: () => Promise<SourceHarness>, further?: Further): void {
  describe(`a source of ${kind} (SEED=${seed})`, () => {
    let harness: SourceHarness;
    let stage: SourceStage;
    beforeAll(async () => {
      harness = await start();
      for (const what of ['orders', 'mixed', 'between']) await harness.prepare(what);
      stage = await SourceStage.open(`${(await further?.sources(harness)) ?? ''}
        { ${harness.proxied('between')}, name: 'between', channel: 'between' } },
        { ${harness.config('orders')}, name: 'orders', channel: 'orders' } },
        { ${harness.config('mixed')}, name: 'mixed', channel: ({ json }) => {
          if (json.bad === 'throws') throw new Error('I do not like it');
          if (json.bad === 'channel') return 'not a channel';
          if (json.bad === 'promise') return Promise.reject(new Error('later'));
          return json.none ? null : json.both ? ['mixed:a', 'mixed:b'] : 'mixed:a';
        } } }`);
      await Promise.all([stage.startNode(), stage.startNode()]);
    }, startMs);
    afterAll(async () => {
      await stage.close();
      await harness.proxy.close();
      await harness.close();
    }, 60_000);

    test('each message once and in order, while the nodes that read it are killed -9, and the broker', async () => {
      const random = randomFrom(seed);
      const count = long ? 50_000 : 1_500;
      const kills = long ? 10 : harness.startsFast ? 2 : 1;
      let sent = 0;
      const sendUpTo = async (end: number): Promise<void> => {
        while (sent < end) {
          const some = Math.min(end - sent, 1 + Math.floor(random() * 60));
          await harness.send(
            'orders',
            Array.from({ length: some }, (_, place) => String(sent + place)),
          );
          sent += some;
        }
      };
      const sending = sendUpTo(count / 2);
      for (let killed = 1; killed <= kills; killed++) {
        const goal = Math.floor((count * killed) / (2 * kills + 4));
        await until(async () => (await stage.logged('orders')) >= goal, `${goal} are logged`, 60_000, 10);
        await stage.kill(await stage.reader('orders'));
        await stage.startNode();
      }
      await sending;
      const said = async ({ url }: RunningServer): Promise<string | undefined> => {
        const response = await fetch(`${url}/health/ready`, { signal: AbortSignal.timeout(20_000) });
        const { checks } = (await response.json()) as {
          checks: Record<string, { ok: boolean; lastError?: { message: string } }>;
        };
        return checks['sources']?.ok === true
          ? undefined
          : `${response.status} ${checks['sources']?.lastError?.message}`;
      };
      const all = (): Promise<(string | undefined)[]> => Promise.all(stage.nodes.map(said));
      if (long || harness.startsFast) {
        await harness.kill9();
        // The node serves on: nobody else needs the broker.
        const isSaid = async (): Promise<boolean> =>
          (await all()).some((text) => /^200 \d of \d sources/.test(text ?? ''));
        await until(isSaid, 'it is said that the broker is away', 60_000, 50);
        await harness.start();
      }
      await sendUpTo(count);
      await until(async () => (await stage.logged('orders')) >= count, 'all are logged', 90_000, 50);
      expect(await stage.log('orders')).toEqual(Array.from({ length: count }, (_, place) => place));
      await until(async () => (await all()).every((text) => text === undefined), 'all is well', 60_000, 50);
      const lags = (): Promise<(string | undefined)[]> =>
        Promise.all(stage.nodes.map((node) => metric(node, 'sobranie_source_lag_messages{source="orders"}')));
      let last: string[] = [];
      const noneWait = async (): Promise<boolean> =>
        (last = (await lags()).filter((lag) => lag !== undefined)).join() === '0';
      await until(noneWait, () => `one node says that none wait: ${last.join()}`, 60_000, 50);
    }, 300_000);

    test('what cannot be published is parked with its error, counted, and stops nothing', async () => {
      const large = JSON.stringify({ text: 'x'.repeat(70_000) });
      const reader = await stage.reader('mixed');
      await harness.send('mixed', ['{"n":1}', 'no json', '{"bad":"throws"}', '{"bad":"channel"}', '{"bad":"promise"}']);
      await harness.send('mixed', [large, '{"none":true}', new Uint8Array([0x22, 0xff, 0x22]), '{"both":true}']);
      await until(async () => (await stage.logged('mixed:b')) === 1, 'the last one is logged', 60_000, 20);
      expect(await stage.log('mixed:a')).toEqual([{ n: 1 }, { both: true }]);
      const parked = await stage.sql<{ channel: string; error: string; bytes: string }[]>`
        select channel, error, bytes from realtime.parked where error like 'source mixed%' order by number`;
      expect(parked.map(({ error }) => error.replace(/^source mixed, partition \S+, position [^:]+: /, ''))).toEqual([
        expect.stringMatching(/^channel: JSON Parse error/),
        'channel: I do not like it',
        'channel: "not a channel" is not a channel',
        'channel: it answered a promise; the functions of a source answer at once',
        'the data is larger than 65536 bytes (MAX_MESSAGE_BYTES)',
        'the body is not UTF-8',
      ]);
      expect(parked[4]).toMatchObject({ channel: 'mixed:a', bytes: String(large.length) });
      // A node that came lately may have taken the partition over since.
      const count = async (outcome: string): Promise<number> => {
        const sample = `sobranie_source_messages_total{source="mixed",outcome="${outcome}"}`;
        const counts = await Promise.all(stage.nodes.map((node) => metric(node, sample)));
        return counts.reduce((sum, each) => sum + Number(each ?? 0), 0);
      };
      await until(async () => (await count('published')) === 2, 'it is counted', 20_000, 20);
      expect([await count('parked'), await count('skipped')]).toEqual([6, 1]);
      if ((await stage.reader('mixed')) === reader) expect(await count('repeated')).toBe(0);
    }, 120_000);

    // Of what the reader has sent since the message came to it, the broker hears nothing: no commit either.
    test('the node that reads is killed -9 between what it published and its commit: a browser gets it once', async () => {
      const reader = await stage.reader('between');
      const other = stage.nodes.find((node) => node !== reader);
      const browser = await WebSocketClient.open(other?.url ?? '');
      await browser.request({ type: 'subscribe', channel: 'between' }, 20_000);
      const logs = (count: number): Promise<void> =>
        until(async () => (await stage.logged('between')) >= count, `${count} are logged`, 120_000, 20);
      await harness.send('between', ['1', '2']);
      await logs(2);
      harness.proxy.deafAfter('not committed');
      await harness.send('between', ['"not committed"']);
      await logs(3);
      await stage.kill(reader);
      harness.proxy.hear();
      await stage.startNode();
      await harness.send('between', ['4']);
      await logs(4);
      const repeated = async (): Promise<string | undefined> =>
        metric(await stage.reader('between'), 'sobranie_source_messages_total{source="between",outcome="repeated"}');
      const count = harness.bringsAgain ? '1' : '0';
      await until(async () => (await repeated()) === count, `${count} came again`, 60_000, 50);
      const sent = [1, 2, 'not committed', 4];
      const got: unknown[] = [];
      while (got.length < sent.length) got.push((await browser.next('message', 20_000)).data);
      expect(got).toEqual(sent);
      expect((await browser.settle()).filter(({ type }) => type === 'message' || type === 'gap')).toEqual([]);
      expect(await stage.log('between')).toEqual(sent);
      await browser.close();
    }, 300_000);

    further?.tests(() => stage);
  });
}
