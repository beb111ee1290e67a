// The calls that take rights away while connections last: of one user, for backends, and the rules anew, for operators.

import { Elysia } from 'elysia';
import type { Cluster } from '../core/cluster.ts';
import { RealtimeError } from '../protocol/realtime-error.ts';
import { isUser, userShape } from '../protocol/user.ts';
import type { ServerAccess } from './server-access.ts';

/** `restart`: patterns whose channels' history would be kept otherwise, which only a restart brings about. */
export type RulesTrial =
  { readonly count: number; readonly restart: readonly string[] } | { readonly faults: readonly string[] };

export interface RightsOptions {
  readonly cluster: Cluster;
  readonly serverAccess: ServerAccess;
  readonly tryRules: () => Promise<RulesTrial>;
}

export function rightsRoutes({ cluster, serverAccess, tryRules }: RightsOptions): Elysia {
  // What comes as a body is not read.
  const parse = () => ({});
  const app = new Elysia({ name: 'sobranie-rights', prefix: '/realtime' })
    .post(
      '/users/:user/reauthorize',
      async ({ request, params: { user } }) => {
        serverAccess.requireServer(request);
        if (!isUser(user)) throw new RealtimeError('bad_request', `The user is not ${userShape}.`);
        const { value: unsubscribed, incomplete } = await cluster.reauthorize(user);
        return { user, unsubscribed, ...namesOf(incomplete) };
      },
      {
        parse,
        detail: {
          summary: 'Ask anew what a user may, on all nodes',
          description:
            'Subscriptions that are no longer allowed end with `unsubscribed`. incomplete: nodes that did not confirm.',
          tags: ['api'],
        },
      },
    )
    .post(
      '/reload',
      async ({ request }) => {
        serverAccess.requireAdmin(request);
        const trial = await tryRules();
        if ('faults' in trial) {
          throw new RealtimeError(
            'bad_request',
            `The rules are faulty, and change nothing: ${trial.faults.join('; ')}`,
          );
        }
        const { value: unsubscribed, incomplete } = await cluster.reauthorize(undefined);
        const { count, restart } = trial;
        return { rules: count, unsubscribed, ...(restart.length === 0 ? {} : { restart }), ...namesOf(incomplete) };
      },
      {
        parse,
        detail: {
          summary: 'Read the rules anew, on all nodes',
          description:
            'Needs the admin key. restart: rules whose change to `recoverable` or `history` waits for a restart.',
          tags: ['operations'],
        },
      },
    );
  return app as unknown as Elysia;
}

/** Absent from an answer that is whole. */
function namesOf(incomplete: readonly string[]): { incomplete?: readonly string[] } {
  return incomplete.length === 0 ? {} : { incomplete };
}
