// Where a publication was held up on its way over several nodes could not be seen. A receiver of the test's own decodes
// what the nodes send, and puts the traces together.

import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { readFileSync } from 'node:fs';
import { Glob } from 'bun';
import postgres from 'postgres';
import { WebSocketClient } from '../support/clients.ts';
import { startNode, stopNodes } from '../support/nodes.ts';
import { patient } from '../support/patience.ts';
import { createDatabase } from '../support/postgres.ts';
import type { Environment, RunningServer } from '../support/process.ts';
import { startRedis } from '../support/redis.ts';
import { until } from '../support/tcp-client.ts';

patient();

interface Span {
  readonly node: string;
  readonly name: string;
  readonly traceId: string;
  readonly spanId: string;
  readonly parentSpanId?: string;
  readonly startTimeUnixNano: string;
  readonly endTimeUnixNano: string;
  readonly links?: readonly { readonly traceId: string; readonly spanId: string }[];
  readonly attributes: readonly { readonly key: string; readonly value: Readonly<Record<string, unknown>> }[];
}

interface Export {
  readonly resourceSpans: readonly {
    readonly resource: { readonly attributes: Span['attributes'] };
    readonly scopeSpans: readonly { readonly spans: readonly Omit<Span, 'node'>[] }[];
  }[];
}

const spans: Span[] = [];
const paths = new Set<string>();
const receiver = Bun.serve({
  port: 0,
  hostname: '127.0.0.1',
  async fetch(request) {
    paths.add(new URL(request.url).pathname);
    const bytes = new Uint8Array(await request.arrayBuffer());
    const isPacked = request.headers.get('content-encoding') === 'gzip';
    const { resourceSpans } = JSON.parse(new TextDecoder().decode(isPacked ? Bun.gunzipSync(bytes) : bytes)) as Export;
    for (const { resource, scopeSpans } of resourceSpans) {
      const node = String(attribute(resource, 'service.instance.id'));
      for (const each of scopeSpans.flatMap((scope) => scope.spans)) spans.push({ ...each, node });
    }
    return Response.json({});
  },
});
afterAll(() => receiver.stop(true));

function attribute({ attributes }: Pick<Span, 'attributes'>, name: string): unknown {
  const [value] = Object.values(attributes.find(({ key }) => key === name)?.value ?? {});
  return value;
}

const caller = { traceId: '0af7651916cd43dd8448eb211c80319c', spanId: 'b7ad6b7169203331' };

for (const layer of ['postgres', 'redis'] as const) {
  describe(`over ${layer}`, () => {
    const closers: (() => Promise<unknown>)[] = [];
    const names = [`${layer}-1`, `${layer}-2`];
    let nodes: RunningServer[] = [];
    let sql: postgres.Sql;

    beforeAll(async () => {
      const { url } = await createDatabase({ migrated: true });
      const redis = layer === 'redis' ? await startRedis() : undefined;
      if (redis !== undefined) closers.push(() => redis.close());
      const settings: Environment = {
        DATABASE_URL: url,
        OTEL_EXPORTER_OTLP_ENDPOINT: `http://127.0.0.1:${receiver.port}`,
        ...(redis === undefined ? { SYNC: 'postgres' } : { SYNC: 'redis', REDIS_URL: redis.url }),
      };
      nodes = await Promise.all(names.map((NODE_ID) => startNode({ ...settings, NODE_ID }, 60_000)));
      closers.push(() => stopNodes(nodes));
      sql = postgres(url, { max: 1, onnotice: () => undefined });
      closers.push(() => sql.end({ timeout: 1 }));
      await sql`create table notes (id int primary key)`;
      await sql`select realtime.watch('notes')`;
    }, 120_000);
    afterAll(async () => {
      for (const close of closers.reverse()) await close();
    }, 60_000);

    /** Resolves when the trace of the channel's first publication reaches to both nodes. */
    async function trace(channel: string): Promise<Span[]> {
      const own = (): Span[] =>
        spans.filter((span) => names.includes(span.node) && attribute(span, 'sobranie.channel') === channel);
      const wide = (): Span[] => own().filter(({ name }) => name === 'fan out');
      await until(
        () => wide().length === 2 && own().some(({ name }) => name === 'append'),
        () => `a trace of ${channel}; there are ${JSON.stringify(own())}`,
        30_000,
      );
      const { traceId } = wide()[0]!;
      return own().filter((span) => span.traceId === traceId);
    }

    function expectWhole(found: readonly Span[]): Span {
      const first = found.find(({ name }) => name === 'publish')!;
      expect(first.parentSpanId ?? '').toBe('');
      const below = found.filter((span) => span !== first);
      expect(below.map(({ name }) => name).toSorted()).toEqual(['append', 'fan out', 'fan out', 'sync', 'sync']);
      for (const span of below) {
        expect(span.parentSpanId).toBe(first.spanId);
        expect(BigInt(span.endTimeUnixNano) >= BigInt(span.startTimeUnixNano)).toBe(true);
      }
      const wide = below.filter(({ name }) => name === 'fan out');
      expect(wide.map(({ node }) => node).toSorted()).toEqual(names);
      for (const span of wide) expect(Number(attribute(span, 'sobranie.subscribers'))).toBe(1);
      return first;
    }

    async function subscribeBoth(channel: string): Promise<void> {
      for (const node of nodes) {
        const socket = await WebSocketClient.open(node.url);
        closers.push(() => socket.cut());
        expect((await socket.request({ type: 'subscribe', channel })).type).toBe('subscribed');
      }
    }

    test('a publication over HTTP: one trace over both nodes, linked with the caller', async () => {
      const channel = `room:${layer}`;
      await subscribeBoth(channel);
      const response = await fetch(`${nodes[0]!.url}/realtime/publish`, {
        method: 'POST',
        headers: { 'content-type': 'application/json', traceparent: `00-${caller.traceId}-${caller.spanId}-01` },
        body: JSON.stringify({ channel, data: { text: 'hello' } }),
      });
      expect(response.status).toBe(200);
      const first = expectWhole(await trace(channel));
      expect(attribute(first, 'sobranie.source')).toBe('api');
      expect(first.links).toMatchObject([caller]);
      const called = (): Span | undefined =>
        spans.find((span) => span.traceId === caller.traceId && attribute(span, 'sobranie.channel') === channel);
      await until(() => called() !== undefined, 'a span in the trace of the caller', 30_000);
      expect(called()).toMatchObject({ name: 'publish', parentSpanId: caller.spanId, node: names[0] });
      expect(called()?.links).toMatchObject([{ traceId: first.traceId, spanId: first.spanId }]);
    });

    test('a row: one trace over both nodes, and the batch of the relay is linked with it', async () => {
      await subscribeBoth('notes');
      await sql`insert into notes values (1)`;
      const first = expectWhole(await trace('notes'));
      expect(attribute(first, 'sobranie.source')).toBe('database');
      const batch = (): Span | undefined =>
        spans.find(({ name, links }) => name === 'relay' && links?.some(({ spanId }) => spanId === first.spanId));
      await until(() => batch() !== undefined, 'the batch of the relay', 30_000);
      expect(Number(attribute(batch()!, 'sobranie.rows'))).toBe(1);
      expect([...paths]).toEqual(['/v1/traces']);
    });
  });
}

test('without a receiver nothing of it is loaded: one file imports the packages, and none imports that file first', () => {
  const folder = new URL('../../src/', import.meta.url).pathname;
  const files = [...new Glob('**/*.ts').scanSync(folder)].map((path) => ({
    path,
    text: readFileSync(folder + path, 'utf8'),
  }));
  const importing = files.filter(({ text }) => text.includes("from '@opentelemetry/")).map(({ path }) => path);
  expect(importing).toEqual(['tracing/exporter.ts']);
  expect(files.filter(({ text }) => /from '[./]*(?:tracing\/)?exporter\.ts'/.test(text))).toEqual([]);
});
