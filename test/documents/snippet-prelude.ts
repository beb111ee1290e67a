// What a snippet of the documents takes for granted, before it runs in a process of its own: that a path leads to the
// application's backend, as it does in a page, and the application's database.

import postgres from 'postgres';

const { APP_URL = '', DATABASE_URL = '' } = process.env;
const own = globalThis.fetch;
const fetchAsPage = (target: string | URL | Request, options?: RequestInit): Promise<Response> =>
  own(typeof target === 'string' && target.startsWith('/') ? APP_URL + target : target, options);
const query = async ({ text, values }: { text: string; values: string[] }): Promise<unknown> => {
  const sql = postgres(DATABASE_URL, { max: 1, onnotice: () => undefined });
  try {
    return await sql.unsafe(text, values);
  } finally {
    await sql.end({ timeout: 5 });
  }
};
Object.assign(globalThis, { fetch: fetchAsPage, database: { query } });
