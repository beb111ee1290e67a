// Settings about tokens that would let strangers in, or nobody: each is told at the start, by its name.

import { expect, test } from 'bun:test';
import { exportSPKI, generateKeyPair } from 'jose';
import { settingsWarnings, type Environment } from '../../../src/settings/settings.ts';
import { faultsOf, settingsOf } from '../../support/settings.ts';
import { secret } from '../../support/tokens.ts';

const pem = (text: string): string => `-----BEGIN PUBLIC KEY-----\n${text}\n-----END PUBLIC KEY-----`;
const production = { NODE_ENV: 'production', DATABASE_URL: 'postgres://h/d', API_KEY: 'k' };

test('audiences and issuers are lists', () => {
  const { jwtAudience, jwtIssuer } = settingsOf({
    JWT_SECRET: secret,
    JWT_AUDIENCE: 'chat, https://chat.example',
    JWT_ISSUER: 'https://id.example',
  });
  expect([jwtAudience, jwtIssuer]).toEqual([['chat', 'https://chat.example'], ['https://id.example']]);
});

test.each<[string, Environment, RegExp]>([
  ['an audience without a key', { JWT_AUDIENCE: 'chat' }, /^JWT_AUDIENCE is set without a token key: set JWT_SECRET/],
  [
    'an issuer without a key',
    { JWT_ISSUER: 'https://id.example' },
    /^JWT_ISSUER is set without a token key: set JWT_SECRET/,
  ],
  ['an audience of nothing', { JWT_SECRET: secret, JWT_AUDIENCE: ' , ' }, /^JWT_AUDIENCE: .* comma-separated list/],
  ['a public key that is none', { JWT_PUBLIC_KEY: pem('MCow') }, /^JWT_PUBLIC_KEY: .* is not a key/],
  ['a public key as the secret', { JWT_SECRET: pem('MCow') }, /^JWT_SECRET holds a key in PEM form/],
  [
    'keys over plain http from the internet',
    { ...production, JWKS_URL: 'http://id.example/keys' },
    /^JWKS_URL is plain http: use https in production/,
  ],
  [
    'keys over plain http from a name of digits',
    { ...production, JWKS_URL: 'http://10.0.0.example/keys' },
    /^JWKS_URL is plain http: use https/,
  ],
  [
    'keys over plain http from a name of 127',
    { ...production, JWKS_URL: 'http://127.0.0.example/keys' },
    /^JWKS_URL is plain http: use https/,
  ],
  [
    'keys over plain http from an address',
    { ...production, JWKS_URL: 'http://203.0.113.7/keys' },
    /^JWKS_URL is plain http: use https/,
  ],
])('%s is a fault', (_what, env, expected) => {
  expect(faultsOf(env)).toEqual([expect.stringMatching(expected)]);
});

test('a key that signs by a curve for Diffie-Hellman is a fault', async () => {
  const { publicKey } = await generateKeyPair('ECDH-ES', { crv: 'X25519', extractable: true });
  expect(faultsOf({ JWT_PUBLIC_KEY: await exportSPKI(publicKey) })).toEqual([
    expect.stringMatching(/^JWT_PUBLIC_KEY: .*use RSA, Ed25519/),
  ]);
});

test('no fault shows a key', () => {
  for (const env of [{ JWT_PUBLIC_KEY: pem('c2VjcmV0') }, { JWT_SECRET: pem('c2VjcmV0') }]) {
    expect(faultsOf(env).join()).not.toContain('c2VjcmV0');
  }
});

test('a cluster’s own key host may speak plainly, which is told; this machine’s need not be', () => {
  const warnings = (url: string) => settingsWarnings(settingsOf({ ...production, JWKS_URL: url }));
  for (const host of ['keycloak', 'id.prod.svc', 'id.internal', '10.0.0.7', '192.168.1.1', '172.20.0.2', '[fd00::1]']) {
    expect([host, ...warnings(`http://${host}:8080/keys`)]).toEqual([
      host,
      expect.stringMatching(/^JWKS_URL is plain http/) as unknown as string,
    ]);
  }
  for (const url of ['https://id.example/keys', 'http://127.0.0.1/keys', 'http://localhost:1/keys']) {
    expect([url, ...warnings(url)]).toEqual([url]);
  }
});
