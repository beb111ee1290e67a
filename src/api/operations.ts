// Health and metrics, for operators and orchestrators.

import { Elysia } from 'elysia';
import { answerHeaders } from '../http/answer-headers.ts';

export interface Check {
  readonly ok: boolean;
  readonly detail?: string | undefined;
}

export interface OperationsOptions {
  /** Each check answers within its own time limit and does not throw. */
  readonly ready: () => Promise<Readonly<Record<string, Check>>>;
  readonly live: () => Readonly<Record<string, Check>>;
  readonly metrics: () => Promise<{ readonly contentType: string; readonly body: string }>;
}

export function operationsRoutes({ ready, live, metrics }: OperationsOptions): Elysia {
  const app = new Elysia({ name: 'sobranie-operations' })
    .get('/health/live', () => healthResponse(live()), {
      detail: { summary: 'Whether the process works at all', tags: ['operations'] },
    })
    .get('/health/ready', async () => healthResponse(await ready()), {
      detail: {
        summary: 'Whether this node should get traffic',
        description: 'A message travels the sync layer for each answer; 503 while draining.',
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

function healthResponse(checks: Readonly<Record<string, Check>>): Response {
  const ok = Object.values(checks).every((check) => check.ok);
  const body = JSON.stringify({ status: ok ? 'ok' : 'unavailable', checks });
  const headers = {
    ...answerHeaders,
    'content-type': 'application/json; charset=utf-8',
    'cache-control': 'no-store',
  };
  return new Response(body, { status: ok ? 200 : 503, headers });
}
