// Sends spans by OTLP over HTTP. Here alone the OpenTelemetry packages are known; this file is loaded only where an
// endpoint is set.

import { ROOT_CONTEXT, SpanKind, SpanStatusCode, trace, TraceFlags, type SpanContext } from '@opentelemetry/api';
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-http';
import { resourceFromAttributes } from '@opentelemetry/resources';
import {
  AlwaysOnSampler,
  BatchSpanProcessor,
  RandomIdGenerator,
  TracerProvider,
  type IdGenerator,
  type SpanExporter,
} from '@opentelemetry/sdk-trace';
import { isDoneWithin } from '../time/within.ts';
import type { SpanPlace } from './publication-trace.ts';
import type { SpanFields, Spans } from './spans.ts';

export interface ExporterOptions {
  /** Base of the receiver's URL, as `OTEL_EXPORTER_OTLP_ENDPOINT` is given: `/v1/traces` is added. */
  readonly endpoint: string;
  readonly service: string;
  readonly version: string;
  readonly node: string;
  /** The receiver takes nothing; called once, until it has taken something again. */
  readonly failed: (error: unknown) => void;
}

/** Spans wait so long for others to travel with. */
const delayMs = 1_000;
const queueMax = 8_192;
/** A receiver that is away does not hold up a shutdown. */
const closeMs = 1_000;

const kinds = { producer: SpanKind.PRODUCER, internal: SpanKind.INTERNAL, consumer: SpanKind.CONSUMER };

export function openExporter(options: ExporterOptions): Spans {
  const ids = new GivenIds();
  const exporter = watched(new OTLPTraceExporter({ url: urlOf(options.endpoint) }), options.failed);
  const provider = new TracerProvider({
    resource: resourceFromAttributes({
      'service.name': options.service,
      'service.version': options.version,
      'service.instance.id': options.node,
    }),
    // Which publications are traced is decided by their positions.
    sampler: new AlwaysOnSampler(),
    idGenerator: ids,
    spanProcessors: [new BatchSpanProcessor({ exporter, scheduledDelayMillis: delayMs, maxQueueSize: queueMax })],
  });
  const tracer = provider.getTracer('sobranie', options.version);
  return {
    add({ name, kind, from, to, parent, own, links = [], attributes, error }: SpanFields): void {
      ids.next = own;
      const context = parent === undefined ? ROOT_CONTEXT : trace.setSpanContext(ROOT_CONTEXT, contextOf(parent));
      const span = tracer.startSpan(
        name,
        { kind: kinds[kind], startTime: from, attributes, links: links.map((link) => ({ context: contextOf(link) })) },
        context,
      );
      ids.next = undefined;
      if (error !== undefined) span.setStatus({ code: SpanStatusCode.ERROR, message: error });
      span.end(to);
    },
    async close(): Promise<void> {
      await isDoneWithin(provider.shutdown(), closeMs);
    },
  };
}

/** Random ids, but for a span whose place is given. */
class GivenIds implements IdGenerator {
  next: SpanPlace | undefined;
  readonly #random = new RandomIdGenerator();

  generateTraceId(): string {
    return this.next?.traceId ?? this.#random.generateTraceId();
  }

  generateSpanId(): string {
    return this.next?.spanId ?? this.#random.generateSpanId();
  }
}

function contextOf({ traceId, spanId }: SpanPlace): SpanContext {
  return { traceId, spanId, traceFlags: TraceFlags.SAMPLED, isRemote: true };
}

function urlOf(endpoint: string): string {
  const url = new URL(endpoint);
  url.pathname = `${url.pathname.replace(/\/$/, '')}/v1/traces`;
  return url.href;
}

function watched(exporter: SpanExporter, failed: (error: unknown) => void): SpanExporter {
  let fails = false;
  return {
    export(spans, done) {
      exporter.export(spans, (result) => {
        const failsNow = result.code !== 0;
        if (failsNow && !fails) failed(result.error);
        fails = failsNow;
        done(result);
      });
    },
    shutdown: () => exporter.shutdown(),
    forceFlush: () => exporter.forceFlush?.() ?? Promise.resolve(),
  };
}
