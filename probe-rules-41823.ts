import { defineConfig } from 'sobranie/config';
export default defineConfig({
  rules: [
    { channels: 'inbox:{sub}', join: true, allow: { subscribe: 'owner' } },
    {
      channels: 'tab:{t}',
      allow: { subscribe: 'everyone', publish: 'everyone', presence: 'everyone', history: 'everyone' },
      snapshot: ({ captures, sql }) => sql`select * from msgs where room = ${captures.t} order by id`,
    },
    { channels: '*', recoverable: true },
  ],
});
