// Every form of REDIS_URL, and the fault that is reported of anything else: plain words, and never a password.

import { describe, expect, test } from 'bun:test';
import { parseRedisUrl } from '../../src/redis/url.ts';
import { faultsOf } from '../support/settings.ts';

describe('a Redis URL', () => {
  test('of one server', () => {
    expect(parseRedisUrl('redis://cache')).toMatchObject({
      kind: 'server',
      hosts: [{ host: 'cache', port: 6_379 }],
      tls: false,
      account: {},
      database: 0,
    });
    expect(parseRedisUrl('rediss://app:p%40ss@[::1]:7000/3?family=6')).toMatchObject({
      hosts: [{ host: '::1', port: 7_000 }],
      tls: true,
      account: { username: 'app', password: 'p@ss' },
      database: 3,
      family: 6,
    });
    expect(parseRedisUrl('redis://:secret@h/')).toMatchObject({ account: { password: 'secret' }, database: 0 });
    expect(parseRedisUrl('redis://secret@h?db=2')).toMatchObject({ account: { password: 'secret' }, database: 2 });
    // A password with a colon and an @ that nobody has encoded.
    expect(parseRedisUrl('redis://app:a:b@c@h')).toMatchObject({ account: { username: 'app', password: 'a:b@c' } });
  });

  test('of a cluster', () => {
    expect(parseRedisUrl('rediss+cluster://app:secret@a:7000,b')).toMatchObject({
      kind: 'cluster',
      hosts: [
        { host: 'a', port: 7_000 },
        { host: 'b', port: 6_379 },
      ],
      tls: true,
      account: { username: 'app', password: 'secret' },
    });
  });

  test('of Sentinels', () => {
    const text = 'redis+sentinel://app:secret@a:26380,b/main/4?sentinelUsername=s&sentinelPassword=p%26q';
    expect(parseRedisUrl(text)).toMatchObject({
      kind: 'sentinel',
      hosts: [
        { host: 'a', port: 26_380 },
        { host: 'b', port: 26_379 },
      ],
      master: 'main',
      account: { username: 'app', password: 'secret' },
      sentinelAccount: { username: 's', password: 'p&q' },
      database: 4,
    });
    expect(parseRedisUrl('rediss+sentinel://a/main?db=5')).toMatchObject({ tls: true, master: 'main', database: 5 });
  });

  const refused: [string, RegExp][] = [
    ['redis://h#hunter2', /does not have the form/],
    ['redis://:hunter2', /host is missing or not valid/],
    ['redis://app:hunter2', /host is missing or not valid/],
    ['redis://:hunter2@', /does not have the form/],
    ['redis://:hunter2@h:65536', /port is higher/],
    ['redis://:hunter2@h/x', /database is not a number/],
    ['redis://:hunter2@h/1/2', /too many parts/],
    ['redis://:hunter2@a,b', /several hosts must begin/],
    ['redis://:hunter2%zz@h', /hexadecimal/],
    ['redis://h?password=hunter2', /unknown parameter/],
    ['redis://h?sentinelPassword=hunter2', /begins with redis\+sentinel/],
    ['redis://:hunter2@h?family=5', /neither 4 nor 6/],
    ['redis+cluster://:hunter2@a,b/1', /only database 0/],
    ['redis+sentinel://:hunter2@a,b', /name of the master is missing/],
    ['redis+sentinel://:hunter2@a,,b/main', /host is missing or not valid/],
  ];
  test.each(refused)('with a fault is refused: %s', (url, reason) => {
    const faults = faultsOf({ REDIS_URL: url });
    expect(faults).toHaveLength(1);
    expect(faults[0]).toStartWith('REDIS_URL: "redis');
    expect(faults[0]).toMatch(reason);
    expect(faults[0]).not.toContain('hunter2');
  });

  test.each([
    ['unix:///run/redis/redis.sock?password=hunter2', /a Unix socket is not taken.*redis:\/\/127\.0\.0\.1:6379/],
    ['redis+unix://:hunter2@/run/redis.sock', /a Unix socket is not taken/],
    ['redis-socket:///run/redis.sock', /a Unix socket is not taken/],
    ['redis://:hunter2@/run/redis.sock', /a Unix socket is not taken/],
    ['/run/redis/redis.sock', /a Unix socket is not taken/],
    ['redis-sentinel://:hunter2@a:26379?sentinelMasterId=main', /begin it with redis\+sentinel:\/\//],
    ['rediss-cluster://:hunter2@a,b', /begin it with redis\+cluster:\/\//],
    ['valkeys://:hunter2@a', /rediss:\/\/ for TLS/],
    ['https://:hunter2@a.example', /an HTTP interface/],
    ['redis://:hunter2@a:1,redis://:hunter2@b:1', /write one URL with all hosts/],
  ])('of another client is refused with what to write: %s', (url, reason) => {
    const faults = faultsOf({ REDIS_URL: url });
    expect(faults).toHaveLength(1);
    expect(faults[0]).toMatch(reason);
    expect(faults[0]).not.toContain('hunter2');
  });

  test('is told along with everything else that is wrong', () => {
    const faults = faultsOf({ REDIS_URL: 'redis://a,b', REDIS_TLS_CA: '/nowhere/ca.pem', PORT: 'x' });
    expect(faults.map((fault) => fault.split(':')[0])).toEqual(['PORT', 'REDIS_URL', 'REDIS_TLS_CA']);
    expect(faults[2]).toContain('the file cannot be read');
    expect(faultsOf({ REDIS_URL: 'redis://a', REDIS_TLS_CA: import.meta.path })[0]).toContain('holds no certificate');
  });
});
