// Which channels there are, and who may do what in them; the first rule that matches decides.

import type { RuleConfig } from '@sobranie/server/elysia';

export const rules: readonly RuleConfig[] = [
  {
    channels: 'tasks',
    // What the ticket grants, see server.ts.
    allow: { subscribe: 'token', presence: 'token' },
    // What a new subscriber starts with; every change after it follows.
    snapshot: ({ sql }) => sql`select id, title, done, author from tasks order by id`,
  },
  { channels: '*', allow: { subscribe: 'nobody', publish: 'nobody' } },
];
