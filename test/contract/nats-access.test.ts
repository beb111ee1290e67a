// A server of NATS that asks who comes, and one that speaks TLS: the URL and the settings beside it open both.

import { expect, test } from 'bun:test';
import { NatsAdapter } from '../../src/sync/nats/adapter.ts';
import { NatsNames } from '../../src/sync/nats/names.ts';
import { natsUrlFault, parseNatsUrl, type NatsTarget } from '../../src/sync/nats/target.ts';
import { systemClock } from '../../src/time/clock.ts';
import { silentObserver } from '../support/doubles.ts';
import { startNats } from '../support/nats.ts';
import { makeCertificates } from '../support/redis-certificates.ts';

/** Resolves when the adapter has started and a probe came back. */
async function enter(target: NatsTarget): Promise<void> {
  const adapter = new NatsAdapter({
    target,
    names: new NatsNames('access'),
    nodeId: 'node',
    clock: systemClock,
    replicas: undefined,
    keySeconds: 3_600,
    observer: silentObserver,
    waiting: () => undefined,
    log: () => undefined,
  });
  try {
    await adapter.start({ publication: () => undefined, head: () => undefined, settled: () => undefined });
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
  ]) {
    expect([text, typeof natsUrlFault(text)]).toEqual([text, 'string']);
    expect(natsUrlFault(text)).not.toContain('zz');
  }
  for (const text of ['nats://h', 'tls://u:p@h:1,[::1]:2', 'nats://t@h.example']) {
    expect(natsUrlFault(text)).toBeUndefined();
  }
  expect(parseNatsUrl('nats://u:p%40@one,two:5').servers).toEqual(['one:4222', 'two:5']);
});
