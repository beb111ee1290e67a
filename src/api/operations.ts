// Health and metrics, for operators and orchestrators.

import { Elysia } from 'elysia';
import { answerHeaders } from '../http/answer-headers.ts';

/** One thing that the node needs. */
export interface Check {
  readonly ok: boolean;
  /** When it began to be as it is, in ISO 8601. */
  readonly since: string;
  /** Seconds since it was looked at. */
  readonly age: number;
  /** Why it fails, or failed the last time; in words that anyone may read. */
  readonly lastError?: { readonly message: string; readonly at: string } | undefined;
}

export interface HealthReport {
  readonly status: 'ok' | 'starting' | 'unavailable' | 'draining';
  readonly checks: Readonly<Record<string, Check>>;
}

export interface OperationsOptions {
  /** Each of the three answers within seconds and does not throw. */
  readonly health: {
    live(): HealthReport;
    started(): Promise<HealthReport>;
    ready(): Promise<HealthReport>;
  };
  readonly metrics: () => Promise<{ readonly contentType: string; readonly body: string }>;
}

export function operationsRoutes({ health, metrics }: OperationsOptions): Elysia {
  const app = new Elysia({ name: 'sobranie-operations' })
    .get('/health/live', () => healthResponse(health.live()), {
      detail: {
        summary: 'Whether the process works at all',
        description: 'Restart the node when it does not answer. It is 200 whatever the database or Redis do.',
        tags: ['operations'],
      },
    })
    .get('/health/started', async () => healthResponse(await health.started()), {
      detail: {
        summary: 'Whether this node was ready once',
        description: '503 until then, and 200 ever after.',
        tags: ['operations'],
      },
    })
    .get('/health/ready', async () => healthResponse(await health.ready()), {
      detail: {
        summary: 'Whether this node should get traffic',
        description:
          'A message travels the sync layer for each answer; 503 while draining. Each check says since when it is as it ' +
          'is, and why it failed last.',
        tags: ['operations'],
      },
    })
    .get(
      '/metrics',
      async () => {
        const { contentType, body } = await metrics();
        const headers = { ...answerHeaders, 'content-type': contentType, 'cache-control': 'no-store' };
        return new Response(body, { headers });
      },
      { detail: { summary: 'Metrics in the Prometheus text format', tags: ['operations'] } },
    );
  return app as unknown as Elysia;
}

function healthResponse(report: HealthReport): Response {
  const body = JSON.stringify(report);
  const headers = {
    ...answerHeaders,
    'content-type': 'application/json; charset=utf-8',
    'cache-control': 'no-store',
  };
  return new Response(body, { status: report.status === 'ok' ? 200 : 503, headers });
}
