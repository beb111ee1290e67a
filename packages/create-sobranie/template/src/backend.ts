// What the page asks of server.ts, and the connection to the realtime server.

import { Sobranie, type Change } from '@sobranie/client';

export type Task = { id: number; title: string; done: boolean; author: string };

/** Resolves with the answer; rejects with what the backend said. */
export async function call<Answer = unknown>(method: string, path: string, body?: object): Promise<Answer> {
  const headers = { 'content-type': 'application/json' };
  const response = await fetch(`/api${path}`, { method, ...(body && { headers, body: JSON.stringify(body) }) });
  if (!response.ok) throw new Error(`${path}: ${response.status} ${await response.text()}`);
  return (await response.json()) as Answer;
}

/** One connection for the whole page. It asks for a ticket each time that it needs one. */
export const client = new Sobranie<{ tasks: Change<Task> }>(location.origin, {
  token: async () => (await call<{ ticket: string }>('POST', '/ticket')).ticket,
});
