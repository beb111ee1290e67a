// What the server's hooks send to a backend: checked and read. The signature covers the time and the body as it came, so
// the body must not have been parsed and printed again.

/** An event of the server's hooks. */
export interface HookEvent {
  /** The same event may come twice, with the same id. */
  readonly id: string;
  readonly event:
    'channel.occupied' | 'channel.vacated' | 'member.joined' | 'member.left' | 'user.online' | 'user.offline';
  readonly channel?: string;
  /** Null for a member without a user, who is known by its connection. */
  readonly user?: string | null;
  readonly connection?: string;
  /** Unix milliseconds. */
  readonly at: number;
}

export interface HookOptions {
  /** The server's `HOOKS_SECRET`, or its `API_KEY` if there is none. */
  readonly secret: string;
  /** Seconds by which the request may be older, or newer, than this machine's time. Default: 300. */
  readonly toleranceSeconds?: number;
}

/**
 * The events of a request of the server's hooks; undefined for one that the server has not signed, or that is too old.
 *
 * @example
 * const events = await verifyHook(request, { secret });
 * for (const { event, user } of events ?? []) console.log(event, user);
 */
export async function verifyHook(request: Request, options: HookOptions): Promise<readonly HookEvent[] | undefined> {
  const { secret, toleranceSeconds = 300 } = options;
  if (secret === '') throw new TypeError('The secret is empty.');
  const timestamp = request.headers.get('x-sobranie-timestamp') ?? '';
  const [, digits = ''] = /^sha256=([0-9a-f]{64})$/.exec(request.headers.get('x-sobranie-signature') ?? '') ?? [];
  const body = await request.text();
  const age = Math.abs(Date.now() / 1_000 - Number(timestamp));
  if (digits === '' || !/^\d+$/.test(timestamp) || age > toleranceSeconds) return undefined;
  const text = new TextEncoder();
  const hmac = { name: 'HMAC', hash: 'SHA-256' };
  const key = await crypto.subtle.importKey('raw', text.encode(secret), hmac, false, ['verify']);
  const signature = Uint8Array.from(digits.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16));
  // Compares in constant time.
  if (!(await crypto.subtle.verify('HMAC', key, signature, text.encode(`${timestamp}.${body}`)))) return undefined;
  return (JSON.parse(body) as { events: readonly HookEvent[] }).events;
}
