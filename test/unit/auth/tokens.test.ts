// Every way in which a token can be wrong, and the words that its developer is told.

import { describe, expect, test } from 'bun:test';
import fc from 'fast-check';
import { SignJWT, exportSPKI, generateKeyPair } from 'jose';
import { identityOf } from '../../../src/auth/claims.ts';
import { tokenAuthenticator } from '../../../src/auth/tokens.ts';
import { publicKeyFault, publicKeys, secretKeys } from '../../../src/auth/token-keys.ts';
import type { Identity } from '../../../src/core/access.ts';
import { systemClock } from '../../../src/time/clock.ts';
import { RealtimeError } from '../../../src/protocol/realtime-error.ts';
import { handmade, hs256, nowSeconds, secret, tokenOf } from '../../support/tokens.ts';

const long = process.env['LONG'] === '1';
const plain = { keys: secretKeys(secret), anonymousAllowed: false, clock: systemClock };
const authenticate = tokenAuthenticator(plain);

async function refusalOf(token: string | undefined, by = authenticate): Promise<RealtimeError> {
  try {
    await by(token);
  } catch (error) {
    if (error instanceof RealtimeError) return error;
    throw error;
  }
  throw new Error(`let in: ${token}`);
}

describe('what is refused, and the words', () => {
  const claims = { sub: 'ann' };
  const cases: readonly [string, string, RegExp][] = [
    ['nothing', '', /not a signed JSON Web Token/],
    ['noise', 'x', /not a signed JSON Web Token/],
    ['dots', '..', /not a signed JSON Web Token/],
    ['three letters', 'a.b.c', /not a signed JSON Web Token/],
    ['five parts', 'a.b.c.d.e', /not a signed JSON Web Token/],
    ['a header that is no JSON', handmade('{', claims), /not a signed JSON Web Token/],
    ['a header without "alg"', handmade({}, claims), /not a signed JSON Web Token/],
    ['claims that are no JSON', handmade(hs256, '{"sub":'), /not a signed JSON Web Token/],
    ['claims that are a list', handmade(hs256, '[]'), /not a signed JSON Web Token/],
    ['claims that are a text', handmade(hs256, '"ann"'), /not a signed JSON Web Token/],
    ['"crit" of something unknown', handmade({ ...hs256, crit: ['x'], x: 1 }, claims), /not a signed JSON Web Token/],
    [
      'alg none',
      handmade({ alg: 'none' }, claims),
      /"alg" is not allowed: this server’s key is for HS256, HS384, HS512/,
    ],
    ['alg None', handmade({ alg: 'None' }, claims), /"alg" is not allowed/],
    ['alg of another kind', handmade({ alg: 'RS256' }, claims), /"alg" is not allowed/],
    ['alg that is no text', handmade({ alg: 5 }, claims), /not a signed JSON Web Token/],
    ['another secret', handmade(hs256, claims, 'another secret, also long enough'), /signature does not fit/],
    ['an empty secret', handmade(hs256, claims, ''), /signature does not fit/],
    ['a cut signature', handmade(hs256, claims).slice(0, -3), /signature does not fit/],
    ['no "sub"', handmade(hs256, {}), /has no "sub"/],
    ['"sub" null', handmade(hs256, { sub: null }), /"sub" is not a text of 1 to 128/],
    ['"sub" a number', handmade(hs256, { sub: 7 }), /"sub" is not a text/],
    ['"sub" a list', handmade(hs256, { sub: ['ann'] }), /"sub" is not a text/],
    ['"sub" empty', handmade(hs256, { sub: '' }), /"sub" is not a text/],
    ['"sub" of 129', handmade(hs256, { sub: 'a'.repeat(129) }), /"sub" is not a text/],
    ['"sub" with a line break', handmade(hs256, { sub: 'ann\nbob' }), /"sub" is not a text/],
    ['"sub" with NUL', handmade(hs256, { sub: 'ann\0' }), /"sub" is not a text/],
    ['"sub" with DEL', handmade(hs256, { sub: 'ann\u007f' }), /"sub" is not a text/],
    ['"sub" with half a pair', handmade(hs256, '{"sub":"ann\\ud800"}'), /"sub" is not a text/],
    ['"exp" a text', handmade(hs256, { ...claims, exp: '9999999999' }), /"exp" is not a number/],
    ['"exp" null', handmade(hs256, { ...claims, exp: null }), /"exp" is not a number/],
    ['"exp" infinite', handmade(hs256, '{"sub":"ann","exp":1e999}'), /"exp" is not a number/],
    ['"nbf" a text', handmade(hs256, { ...claims, nbf: 'now' }), /"nbf" is not a number/],
    ['"nbf" ahead', handmade(hs256, { ...claims, nbf: nowSeconds() + 60 }), /not valid yet/],
    ['"channels" a text', handmade(hs256, { ...claims, channels: 'posts' }), /"channels" claim/],
    ['9 KiB', handmade(hs256, { ...claims, more: 'x'.repeat(9_000) }), /larger than 8192 bytes/],
    ['60 KiB of noise', 'x'.repeat(60_000), /larger than 8192 bytes/],
  ];
  test.each(cases)('%s', async (_what, token, message) => {
    const refusal = await refusalOf(token);
    expect([refusal.code, refusal.retryable]).toEqual(['unauthorized', false]);
    expect(refusal.message).toMatch(message);
    if (token.length > 5) expect(refusal.message).not.toContain(token.slice(0, 20));
  });

  test('no token', async () => {
    expect(await refusalOf(undefined)).toMatchObject({ code: 'unauthorized' });
    expect(await tokenAuthenticator({ ...plain, anonymousAllowed: true })(undefined)).toEqual({ user: null });
  });
});

test('clocks may differ by five seconds and no more, either way', async () => {
  const now = nowSeconds();
  const until = (exp: number) => authenticate(handmade(hs256, { sub: 'ann', exp }));
  const from = (nbf: number) => authenticate(handmade(hs256, { sub: 'ann', nbf }));
  // One that is let in late stays as long as it would have been let in.
  expect(await until(now - 2)).toMatchObject({ user: 'ann', expiresAt: now + 3 });
  expect(await refusalOf(handmade(hs256, { sub: 'ann', exp: now - 6 }))).toMatchObject({ code: 'token_expired' });
  expect(await from(now + 4)).toMatchObject({ user: 'ann' });
  expect(await refusalOf(handmade(hs256, { sub: 'ann', nbf: nowSeconds() + 8 }))).toMatchObject({
    code: 'unauthorized',
  });
});

test('an end that is missing, or centuries away, is taken as it is said', async () => {
  expect(await authenticate(handmade(hs256, { sub: 'ann' }))).not.toHaveProperty('expiresAt');
  const far = nowSeconds() + 3e10;
  expect(await authenticate(handmade(hs256, { sub: 'ann', exp: far }))).toMatchObject({
    expiresAt: far,
    warnAt: far - 30,
  });
});

// An end in milliseconds lay 50,000 years away: such a token never ended.
test('an end in milliseconds is refused', async () => {
  const token = handmade(hs256, { sub: 'ann', exp: Date.now() + 60_000 });
  await expect(authenticate(token)).rejects.toMatchObject({ code: 'unauthorized' });
});

test('the warning comes a tenth of the time before the end, from 5 to 30 seconds', () => {
  const lead = (life: number): number => {
    const { expiresAt = 0, warnAt = 0 } = identityOf({ sub: 'ann', exp: 1_000 + life }, 1_000);
    return expiresAt - warnAt;
  };
  expect([5, 60, 100, 300, 86_400].map(lead)).toEqual([5, 6, 10, 30, 30]);
});

test('audience and issuer count where they are set', async () => {
  const keys = {
    ...plain,
    audiences: ['chat', 'https://chat.example'],
    issuers: ['https://id.example', 'https://old'],
  };
  const strict = tokenAuthenticator(keys);
  const good = { sub: 'ann', aud: 'chat', iss: 'https://id.example' };
  const enter = async (claims: object): Promise<Identity> => strict(handmade(hs256, claims));
  expect(await enter(good)).toMatchObject({ user: 'ann' });
  expect(await enter({ ...good, aud: ['mail', 'https://chat.example'], iss: 'https://old' })).toMatchObject({
    user: 'ann',
  });
  const refused: readonly [object, RegExp][] = [
    [{ ...good, aud: 'mail' }, /is for others: its "aud"/],
    [{ ...good, aud: ['mail'] }, /"aud"/],
    [{ ...good, aud: 'cha' }, /"aud"/],
    [{ ...good, aud: { chat: 1 } }, /"aud"/],
    [{ sub: 'ann', iss: good.iss }, /has no "aud"/],
    [{ ...good, iss: 'https://evil.example' }, /"iss" is not the issuer/],
    [{ ...good, iss: 'https://id.example/' }, /"iss" is not the issuer/],
    [{ ...good, iss: ['https://id.example'] }, /"iss" is not the issuer/],
    [{ sub: 'ann', aud: good.aud }, /has no "iss"/],
  ];
  for (const [claims, message] of refused) {
    const refusal = await refusalOf(handmade(hs256, claims), strict);
    expect([refusal.code, refusal.message]).toEqual(['unauthorized', expect.stringMatching(message)]);
  }
});

describe('public keys', () => {
  test.each(['RS256', 'PS512', 'ES256', 'ES384', 'ES512', 'EdDSA'])('%s is taken', async (alg) => {
    const { privateKey, publicKey } = await generateKeyPair(alg, { extractable: true });
    const enter = tokenAuthenticator({ ...plain, keys: publicKeys(await exportSPKI(publicKey)) });
    const token = await new SignJWT({ sub: 'ann' }).setProtectedHeader({ alg }).sign(privateKey);
    expect(await enter(token)).toMatchObject({ user: 'ann' });
    expect(await refusalOf(`${token.slice(0, -12)}AAAAAAAAAAAA`, enter)).toMatchObject({ code: 'unauthorized' });
  });

  test('the public key is no secret to sign with', async () => {
    const { publicKey } = await generateKeyPair('RS256', { extractable: true });
    const pem = await exportSPKI(publicKey);
    const enter = tokenAuthenticator({ ...plain, keys: publicKeys(pem) });
    for (const text of [pem, pem.trim(), `${pem.trim()}\n`, pem.replaceAll(/-----[^-]+-----|\n/g, '')]) {
      expect((await refusalOf(handmade(hs256, { sub: 'ann' }, text), enter)).message).toMatch(/"alg" is not allowed/);
    }
    const der = Buffer.from(pem.replaceAll(/-----[^-]+-----|\n/g, ''), 'base64');
    expect(await refusalOf(handmade(hs256, { sub: 'ann' }, der), enter)).toMatchObject({ code: 'unauthorized' });
  });

  test('an algorithm of another kind of key is told', async () => {
    const [rsa, curve] = await Promise.all([generateKeyPair('RS256'), generateKeyPair('ES256', { extractable: true })]);
    const enter = tokenAuthenticator({ ...plain, keys: publicKeys(await exportSPKI(curve.publicKey)) });
    const token = await new SignJWT({ sub: 'ann' }).setProtectedHeader({ alg: 'RS256' }).sign(rsa.privateKey);
    expect((await refusalOf(token, enter)).message).toMatch(/"alg" is not allowed: this server’s key is for ES256/);
  });

  test('keys that could not be trusted are a fault of the settings', async () => {
    const { publicKey } = await crypto.subtle.generateKey(
      { name: 'RSASSA-PKCS1-v1_5', modulusLength: 1_024, publicExponent: new Uint8Array([1, 0, 1]), hash: 'SHA-256' },
      true,
      ['sign', 'verify'],
    );
    expect(publicKeyFault(await exportSPKI(publicKey))).toMatch(/RSA key of 1024 bits/);
    expect(publicKeyFault('-----BEGIN PUBLIC KEY-----\nMCow\n-----END PUBLIC KEY-----')).toMatch(/is not a key/);
  });
});

test('a good token by the library is taken whole', async () => {
  const channels = { 'chat:*': ['subscribe'] };
  const expiresAt = nowSeconds() + 600;
  const identity = await authenticate(await tokenOf({ sub: 'ann', channels, plan: 'gold' }, expiresAt));
  expect(identity).toMatchObject({ user: 'ann', expiresAt, claims: { sub: 'ann', plan: 'gold', channels } });
  expect(identity.grants).toHaveLength(1);
});

test('rights are held once for all who are granted the same, and nobody can change them for others', () => {
  const granted = (channels: object) => identityOf({ sub: 'ann', channels }, 0);
  const [one, same, other] = [{ a: ['subscribe'] }, { a: ['subscribe'] }, { a: ['publish'] }].map(granted);
  expect(same?.grants).toBe(one?.grants as never);
  expect(same?.claims?.['channels']).toBe(one?.claims?.['channels']);
  expect(other?.grants).not.toBe(one?.grants as never);
  const held = one?.claims?.['channels'] as Record<string, string[]>;
  expect(() => held['a']?.push('publish')).toThrow();
  expect(() => Object.assign(held, { b: ['publish'] })).toThrow();
  // Ever so many others push them out, and change nothing.
  for (let index = 0; index < 2_000; index++) granted({ [`room:${index}`]: ['subscribe'] });
  expect(granted({ a: ['subscribe'] }).grants).toEqual(one?.grants as never);
  expect(granted({ a: ['subscribe'] }).grants).not.toBe(one?.grants as never);
});

test('no change to a token makes it another’s', async () => {
  const claims = { sub: 'ann', channels: { posts: ['subscribe'] }, exp: nowSeconds() + 600 };
  const token = handmade(hs256, claims);
  const letters = ['A', 'x', 'z', '0', '9', '-', '_', '.', '=', '+', '/', ' ', '\0', 'é'];
  const change = fc.record({
    at: fc.nat(token.length - 1),
    removed: fc.nat(3),
    added: fc.array(fc.constantFrom(...letters), { maxLength: 3 }),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(change, { minLength: 1, maxLength: 4 }), async (changes) => {
      let text = token;
      for (const { at, removed, added } of changes) {
        text = text.slice(0, at) + added.join('') + text.slice(at + removed);
      }
      try {
        // Bits of a signature's last letter that mean nothing may differ, and then it is the same token.
        expect(await authenticate(text)).toMatchObject({ user: 'ann', claims });
        expect(text.split('.').slice(0, 2)).toEqual(token.split('.').slice(0, 2));
      } catch (error) {
        expect(error).toMatchObject({ name: 'RealtimeError', code: 'unauthorized' });
      }
    }),
    { numRuns: long ? 200_000 : 5_000 },
  );
});
