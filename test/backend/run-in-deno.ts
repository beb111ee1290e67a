// Each call of the package for backends in Deno, against the server whose address and keys come as arguments. What came
// back goes out as one line of JSON.

import { Backend, BackendError, send, signToken, verifyHook, watch } from '@sobranie/server';

declare const Deno: { readonly args: readonly string[]; exit(code: number): never };

const [url = '', apiKey = '', secret = ''] = Deno.args;

async function signed(body: string): Promise<Request> {
  const text = new TextEncoder();
  const timestamp = String(Math.floor(Date.now() / 1_000));
  const hmac = { name: 'HMAC', hash: 'SHA-256' };
  const key = await crypto.subtle.importKey('raw', text.encode(secret), hmac, false, ['sign']);
  const bytes = new Uint8Array(await crypto.subtle.sign('HMAC', key, text.encode(`${timestamp}.${body}`)));
  const digits = Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
  const headers = { 'x-sobranie-timestamp': timestamp, 'x-sobranie-signature': `sha256=${digits}` };
  return new Request('http://localhost/hooks', { method: 'POST', body, headers });
}

const backend = new Backend(url, { apiKey });
const token = await signToken({ sub: 'ann', channels: { news: ['subscribe'] } }, { secret });
const stream = await fetch(`${url}/realtime/events?channels=news&token=${token}`);
await stream.body?.cancel();
const hook = JSON.stringify({ events: [{ id: '1', event: 'user.online', user: 'ann', at: 1 }] });
console.log(
  JSON.stringify({
    published: await backend.publish('news', { text: 'hello' }),
    notified: await backend.notify('ann', 1),
    messages: (await backend.history('news')).messages.map(({ data }) => data),
    ticket: typeof (await backend.ticket({ user: 'ann', channels: { news: ['subscribe'] } })).ticket,
    disconnected: (await backend.disconnect('nobody')).connections,
    refused: await new Backend(url, { apiKey: 'wrong', retries: 0 })
      .publish('news', 1)
      .catch((error: unknown) => (error instanceof BackendError ? error.code : String(error))),
    stream: stream.status,
    hook: await verifyHook(await signed(hook), { secret }),
    sql: [watch('orders').text, send('news', 1).values],
  }),
);
Deno.exit(0);
