// The key set behind a URL, against a real HTTP host that rotates, vanishes, dawdles and lies.

import { afterEach, beforeAll, describe, expect, test } from 'bun:test';
import { RemoteKeys, type RemoteKeysOptions } from '../../../src/auth/remote-keys.ts';
import { tokenAuthenticator } from '../../../src/auth/tokens.ts';
import { remoteKeys } from '../../../src/auth/token-keys.ts';
import type { Authenticate } from '../../../src/core/access.ts';
import { systemClock } from '../../../src/time/clock.ts';
import { until } from '../../support/tcp-client.ts';
import { handmade, hs256, KeySetHost, namedKey, tokenBy, type NamedKey } from '../../support/tokens.ts';

const open: { close(): void }[] = [];
const hosts: KeySetHost[] = [];
let first: NamedKey, second: NamedKey;

beforeAll(async () => {
  [first, second] = await Promise.all([namedKey('first'), namedKey('second')]);
});

afterEach(async () => {
  for (const keys of open.splice(0)) keys.close();
  await Promise.all(hosts.splice(0).map((host) => host.goAway()));
});

function hostOf(...keys: NamedKey[]): KeySetHost {
  const host = new KeySetHost(...keys);
  hosts.push(host);
  return host;
}

function authenticatorOf(
  host: KeySetHost,
  options: Partial<RemoteKeysOptions> = {},
): { enter: Authenticate; log: string[] } {
  const log: string[] = [];
  const keys = new RemoteKeys({
    url: host.url,
    clock: systemClock,
    log: (message, error) =>
      log.push(error === undefined ? message : `${message}: ${error instanceof Error ? error.message : typeof error}`),
    ...options,
  });
  open.push(keys);
  keys.start();
  return { enter: tokenAuthenticator({ keys: remoteKeys(keys), anonymousAllowed: false, clock: systemClock }), log };
}

async function outcome(enter: Authenticate, token: string): Promise<string> {
  try {
    return (await enter(token)).user ?? 'nobody';
  } catch (error) {
    const { code, message } = error as { code?: string; message: string };
    return `${code}: ${message}`;
  }
}

const awayText = 'unavailable: The keys that check tokens cannot be fetched now; retry.';
const unknownText =
  'unauthorized: The token is signed with a key that the key set does not hold; see its "kid" and "alg".';

test('one request serves everyone who comes', async () => {
  const host = hostOf(first);
  const { enter } = authenticatorOf(host);
  const token = await tokenBy(first);
  expect(await Promise.all(Array.from({ length: 50 }, () => outcome(enter, token)))).toEqual(Array(50).fill('ann'));
  expect(host.asked).toBe(1);
});

test('a new key is fetched when it is first used; the old one counts until it is taken back', async () => {
  const host = hostOf(first);
  const { enter } = authenticatorOf(host, { refreshMs: 200 });
  const [old, fresh] = await Promise.all([tokenBy(first), tokenBy(second)]);
  expect(await outcome(enter, old)).toBe('ann');
  host.answer = KeySetHost.keys(first, second);
  expect(await Promise.all([outcome(enter, fresh), outcome(enter, old)])).toEqual(['ann', 'ann']);
  host.answer = KeySetHost.keys(second);
  await until(async () => (await outcome(enter, old)) === unknownText, 'the old key is forgotten', 10_000, 50);
  expect(await outcome(enter, fresh)).toBe('ann');
});

test('made-up keys are asked about three times, and never more until a while has passed', async () => {
  const host = hostOf(first);
  const { enter } = authenticatorOf(host, { cooldownMs: 300_000 });
  const good = await tokenBy(first);
  expect(await outcome(enter, good)).toBe('ann');
  const strangers = await Promise.all(
    Array.from({ length: 40 }, (_, index) => tokenBy({ ...second, kid: `x${index}` })),
  );
  for (const stranger of strangers) expect(await outcome(enter, stranger)).toBe(unknownText);
  expect(host.asked).toBe(1 + 3);
  expect(await outcome(enter, good)).toBe('ann');
});

test('while its host is away known keys work, and unknown ones are worth a retry', async () => {
  const host = hostOf(first);
  const { enter, log } = authenticatorOf(host, { refreshMs: 50 });
  const [known, unknown] = await Promise.all([tokenBy(first), tokenBy(second)]);
  expect(await outcome(enter, known)).toBe('ann');
  await host.goAway();
  await until(() => log.length > 0, 'the outage is noticed', 10_000, 20);
  for (let index = 0; index < 20; index++) {
    expect(await Promise.all([outcome(enter, known), outcome(enter, unknown)])).toEqual(['ann', awayText]);
  }
  expect(log).toHaveLength(1);
  host.answer = KeySetHost.keys(first, second);
  host.comeBack();
  await until(async () => (await outcome(enter, unknown)) === 'ann', 'the new key is known', 20_000, 50);
});

test('where its host is away at the start, tokens wait for a retry and are taken once it is back', async () => {
  const host = hostOf(first);
  await host.goAway();
  const { enter, log } = authenticatorOf(host);
  const token = await tokenBy(first);
  expect(await outcome(enter, token)).toBe(awayText);
  expect(await outcome(enter, 'noise')).toMatch(/^unauthorized/);
  host.comeBack();
  // Nobody has to ask for it: the set is fetched by itself.
  await until(() => host.asked > 0, 'the host is asked again', 20_000, 20);
  await until(async () => (await outcome(enter, token)) === 'ann', 'the key is known', 20_000, 50);
  expect(log).toEqual([expect.stringContaining('cannot be fetched'), expect.stringContaining('fetched again')]);
});

test('a host that dawdles holds up nobody whose key is known, and nobody for ever', async () => {
  const host = hostOf(first);
  const { enter } = authenticatorOf(host, { timeoutMs: 400 });
  const [known, unknown] = await Promise.all([tokenBy(first), tokenBy(second)]);
  expect(await outcome(enter, known)).toBe('ann');
  const release = Promise.withResolvers<undefined>();
  host.answer = async () => {
    await release.promise;
    return Response.json({ keys: [] });
  };
  const waiting = outcome(enter, unknown);
  const others = await Promise.race([outcome(enter, known), waiting]);
  expect(others).toBe('ann');
  expect(await waiting).toBe(awayText);
  release.resolve(undefined);
});

test('a host that never ends its answer is left at the time limit', async () => {
  const host = hostOf(first);
  host.answer = () => {
    let timer: ReturnType<typeof setInterval>;
    const body = new ReadableStream({
      start(controller) {
        controller.enqueue(new TextEncoder().encode('{"keys":['));
        timer = setInterval(() => controller.enqueue(new TextEncoder().encode(' ')), 20);
      },
      cancel: () => clearInterval(timer),
    });
    return new Response(body);
  };
  const { enter } = authenticatorOf(host, { timeoutMs: 300 });
  expect(await outcome(enter, await tokenBy(first))).toBe(awayText);
});

describe('an answer that is no key set is taken for an outage', () => {
  const answers: readonly [string, () => Response, RegExp][] = [
    ['a page', () => new Response('<html>', { headers: { 'content-type': 'text/html' } }), /JSON/],
    ['another object', () => Response.json({ keys: 'none' }), /something else than a set/],
    ['a list', () => Response.json([]), /something else than a set/],
    ['null', () => Response.json(null), /something else than a set/],
    ['an empty set', () => Response.json({ keys: [] }), /something else than a set/],
    ['500', () => new Response('', { status: 500 }), /answered 500/],
    ['404', () => new Response('{"keys":[]}', { status: 404 }), /answered 404/],
    ['a megabyte', () => Response.json({ keys: [{ x: 'x'.repeat(1 << 20) }] }), /larger than 262144 bytes/],
  ];
  test.each(answers)('%s', async (_what, answer, reason) => {
    const host = hostOf(first);
    host.answer = answer;
    const { enter, log } = authenticatorOf(host);
    expect(await outcome(enter, await tokenBy(first))).toBe(awayText);
    expect(log.join()).toMatch(reason);
  });

  test('a redirect is not followed', async () => {
    const [host, elsewhere] = [hostOf(first), hostOf(second)];
    host.answer = () => Response.redirect(elsewhere.url, 302);
    const { enter, log } = authenticatorOf(host);
    expect(await outcome(enter, await tokenBy(second))).toBe(awayText);
    expect([elsewhere.asked, log.join()]).toEqual([0, expect.stringMatching(/answered 302/)]);
  });
});

test('keys of the set verify signatures and are no secrets; a token that names none is told so', async () => {
  const host = hostOf(first, second);
  const { enter } = authenticatorOf(host);
  const forged = handmade({ ...hs256, kid: 'first' }, { sub: 'ann' }, JSON.stringify(first.jwk));
  expect(await outcome(enter, forged)).toMatch(/^unauthorized: .*"alg" is not allowed/);
  expect(await outcome(enter, await tokenBy({ ...first, kid: 'second' }))).toMatch(/signature does not fit/);
  const { kid: _kid, ...nameless } = first;
  expect(await outcome(enter, await tokenBy(nameless as NamedKey))).toMatch(/must name one in "kid"/);
});

/** A clock whose time stands still until it is moved, and whose pauses are the longest that may be. */
function movedClock() {
  let passedMs = 0;
  const clock = { ...systemClock, monotonic: () => passedMs, random: () => 0.999 };
  return { clock, pass: (milliseconds: number) => void (passedMs += milliseconds) };
}

test('a long time without made-up keys saves up no more than three fetches', async () => {
  const host = hostOf(first);
  const { clock, pass } = movedClock();
  const { enter } = authenticatorOf(host, { clock, cooldownMs: 10_000 });
  expect(await outcome(enter, await tokenBy(first))).toBe('ann');
  const made = await Promise.all(Array.from({ length: 12 }, (_, index) => tokenBy({ ...second, kid: `x${index}` })));
  for (const token of made) expect(await outcome(enter, token)).toBe(unknownText);
  expect(host.asked).toBe(1 + 3);
  pass(10_000);
  for (const token of made) expect(await outcome(enter, token)).toBe(unknownText);
  expect(host.asked).toBe(1 + 3 + 1);
  pass(3_600_000);
  for (const token of made) expect(await outcome(enter, token)).toBe(unknownText);
  expect(host.asked).toBe(1 + 3 + 1 + 3);
});

test('after a failure tokens cause no fetch until the pause is over', async () => {
  const host = hostOf(first);
  host.answer = () => new Response('', { status: 500 });
  const { clock, pass } = movedClock();
  const { enter } = authenticatorOf(host, { clock });
  const token = await tokenBy(first);
  for (let index = 0; index < 20; index++) expect(await outcome(enter, token)).toBe(awayText);
  expect(host.asked).toBe(1);
  pass(1_000);
  for (let index = 0; index < 20; index++) expect(await outcome(enter, token)).toBe(awayText);
  expect(host.asked).toBe(2);
});

test('a set that arrives after the end is the last that is fetched', async () => {
  const [ended, going] = [hostOf(first), hostOf(first)];
  const [over, other] = [ended, going].map(
    ({ url }) => new RemoteKeys({ url, clock: systemClock, log: () => undefined, refreshMs: 5 }),
  );
  over!.start();
  over!.close();
  const enter = tokenAuthenticator({ keys: remoteKeys(over!), anonymousAllowed: false, clock: systemClock });
  expect(await outcome(enter, await tokenBy(first, { sub: 'ann' }))).toBe('ann');
  const { asked } = ended;
  open.push(other!);
  other!.start();
  await until(() => going.asked > 4, 'the other one is fetched again and again');
  expect(ended.asked).toBe(asked);
});
