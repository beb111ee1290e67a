// A server of NATS that asks who comes, and one that speaks TLS: the URL and the settings beside it open both.

import { credsAuthenticator, nkeys } from '@nats-io/transport-node';
import { expect, test } from 'bun:test';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { NatsNames } from '../../src/sync/nats/names.ts';
import { natsUrlFault, parseNatsUrl, type NatsTarget } from '../../src/nats/target.ts';
import { temporaryFolder } from '../support/janitor.ts';
import { deaf, natsAdapter } from '../support/nats-harness.ts';
import { startNats } from '../support/nats.ts';
import { freePort } from '../support/postgres.ts';
import { makeCertificates } from '../support/redis-certificates.ts';
import { faultsOf, settingsOf } from '../support/settings.ts';

/** Resolves when the adapter has started and a probe came back. */
async function enter(target: NatsTarget): Promise<void> {
  const adapter = natsAdapter(target, new NatsNames('access'));
  try {
    await adapter.start(deaf);
    await adapter.probe(5_000);
  } finally {
    await adapter.close();
  }
}

test('a user and a password, with letters that a URL encodes; another password is refused at once', async () => {
  const login = { user: 'ann', pass: 'p@ss/word' };
  const nats = await startNats(['--user', login.user, '--pass', login.pass], login);
  await enter(parseNatsUrl(nats.url.replace('//', '//ann:p%40ss%2Fword@')));
  const startedAt = performance.now();
  await expect(enter(parseNatsUrl(nats.url.replace('//', '//ann:wrong@')))).rejects.toThrow(/[Aa]uthorization/);
  expect(performance.now() - startedAt).toBeLessThan(5_000);
  await nats.close();
});

test('a token', async () => {
  const nats = await startNats(['--auth', 'the-token'], { token: 'the-token' });
  await enter(parseNatsUrl(nats.url.replace('//', '//the-token@')));
  await nats.close();
});

// A user of an account was never tried: the file was read when the engine opened, so a wrong path was a fault of the start
// without a setting's name.
test('a credentials file, to a server that knows its accounts by JWTs; of another account it is refused', async () => {
  const folder = temporaryFolder('nats-credentials');
  const [operator, account, other] = [nkeys.createOperator(), nkeys.createAccount(), nkeys.createAccount()];
  const unlimited = ['subs', 'data', 'payload', 'imports', 'exports', 'conn', 'leaf', 'mem_storage', 'disk_storage'];
  const limits = {
    ...Object.fromEntries([...unlimited, 'streams', 'consumer'].map((name) => [name, -1])),
    wildcards: true,
  };
  const system = nkeys.createAccount();
  const preload = [system, account].map((each) => {
    const nats = { type: 'account', version: 2, ...(each === account ? { limits } : {}) };
    return `${each.getPublicKey()}: ${token(operator, each.getPublicKey(), nats)}`;
  });
  const config = join(folder, 'nats.conf');
  await Bun.write(
    config,
    `operator: ${token(operator, operator.getPublicKey(), { type: 'operator', version: 2 })}
     system_account: ${system.getPublicKey()}
     resolver: MEMORY
     resolver_preload: { ${preload.join('\n')} }`,
  );
  const files = [account, other].map((issuer, index) => {
    const user = nkeys.createUser();
    const jwt = token(issuer, user.getPublicKey(), { type: 'user', version: 2, subs: -1, data: -1, payload: -1 });
    const path = join(folder, `user-${index}.creds`);
    writeFileSync(path, credentialsFile(jwt, new TextDecoder().decode(user.getSeed())));
    return path;
  });
  const [file = '', foreign = ''] = files;
  const login = { authenticator: credsAuthenticator(new Uint8Array(readFileSync(file))) };
  const nats = await startNats(['-c', config], login);
  const target = (path: string): NatsTarget => {
    const { engine } = settingsOf({ SYNC: 'nats', NATS_URL: nats.url, NATS_CREDENTIALS: path });
    return { ...parseNatsUrl(nats.url), credentials: engine['credentials'] as string };
  };
  await enter(target(file));
  await expect(enter(target(foreign))).rejects.toThrow(/[Aa]uthorization/);
  await nats.close();

  const faults = (path: string) => faultsOf({ SYNC: 'nats', NATS_URL: nats.url, NATS_CREDENTIALS: path }).join();
  expect(faults(join(folder, 'none'))).toContain('NATS_CREDENTIALS');
  expect(faults(join(folder, 'none'))).toContain('the file cannot be read');
  expect(faults(config)).toContain('the file does not hold both');
  const pasted = readFileSync(file, 'utf8');
  expect(faults(pasted)).toContain('the file cannot be read');
  expect(faults(pasted)).not.toMatch(/eyJ|SU[A-Z0-9]{20}/);
});

/** A JWT as NATS makes them. */
function token(issuer: nkeys.KeyPair, subject: string, nats: object): string {
  const encode = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url');
  const claims = { jti: crypto.randomUUID(), iat: Math.floor(Date.now() / 1_000), iss: issuer.getPublicKey() };
  const signed = `${encode({ typ: 'JWT', alg: 'ed25519-nkey' })}.${encode({ ...claims, name: 'test', sub: subject, nats })}`;
  return `${signed}.${Buffer.from(issuer.sign(Buffer.from(signed))).toString('base64url')}`;
}

function credentialsFile(jwt: string, seed: string): string {
  return `-----BEGIN NATS USER JWT-----
${jwt}
------END NATS USER JWT------

-----BEGIN USER NKEY SEED-----
${seed}
------END USER NKEY SEED------
`;
}

test('several servers, as one URL or as several; the first is away', async () => {
  const nats = await startNats();
  const away = await freePort();
  for (const url of [
    `nats://127.0.0.1:${away},127.0.0.1:${nats.port}`,
    `nats://127.0.0.1:${away},nats://127.0.0.1:${nats.port}/`,
  ]) {
    await enter(parseNatsUrl(url));
  }
  await nats.close();
});

test('TLS, by an authority of its own', async () => {
  const certificates = makeCertificates();
  const { authority, certificate, key } = certificates;
  const ca = await Bun.file(authority).text();
  const nats = await startNats(['--tls', '--tlscert', certificate, '--tlskey', key], { tls: { ca } });
  const url = nats.url.replace('nats:', 'tls:');
  await enter({ ...parseNatsUrl(url), tlsCa: ca });
  await expect(enter(parseNatsUrl(url))).rejects.toThrow();
  await nats.close();
}, 30_000);

test('what is no URL of NATS is told without showing it', () => {
  for (const text of [
    '',
    'host:4222',
    'redis://host',
    'nats://',
    'nats://a b',
    'nats://h/path',
    'nats://a%zz@h',
    'nats://h,,h',
    'ws://h',
    'nats://h,wss://h',
    'nats://h,tls://h',
    'nats://u:zz@h,nats://v:zz@h',
  ]) {
    expect([text, typeof natsUrlFault(text)]).toEqual([text, 'string']);
    expect(natsUrlFault(text)).not.toContain('zz');
  }
  for (const text of ['nats://h', 'tls://u:p@h:1,[::1]:2', 'nats://t@h.example']) {
    expect(natsUrlFault(text)).toBeUndefined();
  }
  expect(parseNatsUrl('nats://u:p%40@one,two:5').servers).toEqual(['one:4222', 'two:5']);
  const list = 'nats://u:p%40@one,nats://two:5/,nats://u:p%40@three';
  expect(parseNatsUrl(list)).toMatchObject({
    servers: ['one:4222', 'two:5', 'three:4222'],
    account: { user: 'u', pass: 'p@' },
  });
});
