// The rules of the chat: rows first, then live; older messages from the table; who is muted or was kicked may not come in
// or write. Start the realtime server with CONFIG_FILE=examples/chat/realtime.config.ts.

import postgres from 'postgres';
import { defineConfig } from 'sobranie/config';

const database = postgres(process.env['DATABASE_URL'] ?? '', { max: 2, onnotice: () => undefined });

/** Asked for each new question, and again for all a user's subscriptions after `POST …/users/:user/reauthorize`. */
async function isBanned(room: string, user: string | null, kinds: readonly string[]): Promise<boolean> {
  const rows = await database`select from bans where room = ${room} and user_id = ${user} and kind = any (${kinds})`;
  return rows.length > 0;
}

export default defineConfig({
  authorize: { cacheSeconds: 1 },
  rules: [
    {
      channels: 'chat:{room}',
      // Messages are rows, which the application's backend inserts.
      allow: { subscribe: 'authorize', history: 'authorize', presence: 'authorize', publish: 'nobody' },
      authorize: async ({ user, captures }) =>
        user !== null && !(await isBanned(captures['room'] ?? '', user, ['kicked'])),
      snapshot: ({ captures, sql }) => sql`
        select * from messages where room = ${captures['room']} order by id desc limit 30`,
      older: ({ captures, before, limit, sql }) => sql`
        select * from messages where room = ${captures['room']} and id < ${before} order by id desc limit ${limit}`,
    },
    {
      channels: 'typing:{room}',
      recoverable: false,
      allow: { subscribe: 'users', publish: 'authorize' },
      authorize: async ({ user, captures }) =>
        user !== null && !(await isBanned(captures['room'] ?? '', user, ['kicked', 'muted'])),
    },
  ],
});
