// The calls that withdraw rights from open connections: those of one user, for backends; by new rules, for operators.

import { Elysia } from 'elysia';
import type { Cluster } from '../core/cluster.ts';
import { RealtimeError } from '../protocol/realtime-error.ts';
import { isUser, userShape } from '../protocol/user.ts';
import { namesOf } from './incomplete.ts';
import type { ServerAccess } from './server-access.ts';

/** `restart`: patterns of rules that change how history is kept, and sources, which take effect only after a restart. */
export type RulesTrial =
  { readonly count: number; readonly restart: readonly string[] } | { readonly faults: readonly string[] };

export interface RightsOptions {
  readonly cluster: Cluster;
  readonly serverAccess: ServerAccess;
  readonly tryRules: () => Promise<RulesTrial>;
}

export function rightsRoutes({ cluster, serverAccess, tryRules }: RightsOptions): Elysia {
  // The calls have no body, and one that comes is not read.
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
          summary: 'Check a user’s rights again, on all nodes',
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
            `The rules file is faulty, so the old rules stay in force: ${trial.faults.join('; ')}`,
          );
        }
        const { value: unsubscribed, incomplete } = await cluster.reauthorize(undefined);
        const { count, restart } = trial;
        return { rules: count, unsubscribed, ...(restart.length === 0 ? {} : { restart }), ...namesOf(incomplete) };
      },
      {
        parse,
        detail: {
          summary: 'Read the rules file again, on all nodes',
          description:
            'Needs the admin key. restart: rules whose change to `recoverable` or `history` waits for a restart, and sources that changed.',
          tags: ['operations'],
        },
      },
    );
  return app as unknown as Elysia;
}
