// Whose address counts: never one that a client made up.

import { describe, expect, test } from 'bun:test';
import { clientAddress, TrustedProxies } from '../../../src/http/client-address.ts';

function of(peer: string, forwarded: string | null, trusted?: string): string | undefined {
  return clientAddress(peer, forwarded, trusted === undefined ? undefined : TrustedProxies.parse(trusted));
}

test('without trusted proxies, and from strangers, the header is not looked at', () => {
  expect(of('203.0.113.9', '198.51.100.1')).toBe('203.0.113.9');
  expect(of('203.0.113.9', '198.51.100.1', '10.0.0.0/8')).toBe('203.0.113.9');
  expect(of('127.0.0.1', '198.51.100.1')).toBe('127.0.0.1');
});

test('the nearest that is no trusted proxy, read from the right', () => {
  const trusted = '10.0.0.0/8, 192.0.2.7';
  expect(of('10.1.2.3', '198.51.100.1', trusted)).toBe('198.51.100.1');
  expect(of('10.1.2.3', 'made-up, 198.51.100.1', trusted)).toBe('198.51.100.1');
  expect(of('10.1.2.3', '203.0.113.66, 198.51.100.1', trusted)).toBe('198.51.100.1');
  expect(of('10.1.2.3', '1.1.1.1, 198.51.100.1, 192.0.2.7, 10.9.9.9', trusted)).toBe('198.51.100.1');
  expect(of('10.1.2.3', '10.0.0.5, 10.0.0.6', trusted)).toBe('10.0.0.5');
});

test('garbage in the header counts as the proxy itself', () => {
  const words = [
    '010.1.2.3',
    '0x7f.1',
    '2130706433',
    '::ffff:010.1.2.3',
    'unknown',
    '',
    ' ',
    ',',
    ', ,',
    '999.1.1.1',
    '1.2.3',
    '_hidden',
    "'; drop table",
    '1.2.3.4.5',
    '::gg',
  ];
  const forms = [
    'for=1.2.3.4',
    '127.0.0.1:x',
    '198.51.100.1,',
    '[198.51.100.1',
    'x'.repeat(10_000),
    ','.repeat(10_000),
  ];
  for (const header of [...words, ...forms])
    expect([header, of('10.1.2.3', header, 'private')]).toEqual([header, '10.1.2.3']);
  // Behind a second proxy too; what is empty at the far end names nobody.
  expect(of('10.1.2.3', 'unknown, 10.0.0.6', 'private')).toBe('10.1.2.3');
  expect(of('10.1.2.3', ',10.0.0.6', 'private')).toBe('10.0.0.6');
});

test('ports and brackets that proxies add are no part of it', () => {
  expect(of('127.0.0.1', '198.51.100.1:4711', 'loopback')).toBe('198.51.100.1');
  expect(of('::1', '[2001:db8:1:2::3]:4711', 'loopback')).toBe('2001:db8:1:2::/64');
  expect(of('::1', '[2001:db8:1:2::3]', 'loopback')).toBe('2001:db8:1:2::/64');
});

test('one IPv6 client has a /64 to choose from: that is what counts', () => {
  expect(of('2001:db8:1:2:aaaa::1', null)).toBe(of('2001:0DB8:0001:0002::ffff', null));
  expect(of('2001:db8:1:2::1', null)).not.toBe(of('2001:db8:1:3::1', null));
  expect(of('::1', null)).toBe('0:0:0:0::/64');
  for (const zone of ['eth0', 'br-lan', 'eth0.1']) expect(of(`fe80::1%${zone}`, null)).toBe('fe80:0:0:0::/64');
  expect(of('64:ff9b::192.0.2.1', null)).toBe('64:ff9b:0:0::/64');
});

test('IPv4 in IPv6 is IPv4, however it is written', () => {
  for (const mapped of ['::ffff:192.0.2.1', '::FFFF:c000:201', '0:0:0:0:0:ffff:192.0.2.1']) {
    expect(of(mapped, null)).toBe('192.0.2.1');
    expect(of(mapped, '198.51.100.1', '192.0.2.0/24')).toBe('198.51.100.1');
    expect(of('192.0.2.1', mapped, '192.0.2.1/32')).toBe('192.0.2.1');
  }
});

describe('TRUSTED_PROXIES', () => {
  test.each([
    '127.0.0.1',
    'loopback',
    'private,loopback',
    '10.0.0.0/8 , ::1',
    'fd00::/8',
    '::ffff:10.0.0.1',
    '0.0.0.0/0',
  ])('%p is one', (text) => expect(TrustedProxies.parse(text)).toBeInstanceOf(TrustedProxies));

  test.each(['', ',', '*', 'all', 'localhost', '10.0.0.0/33', '10.0.0.0/-1', '10.0.0.0/', '10.0.0.0/8/8', '::/129'])(
    '%p is none',
    (text) => expect(TrustedProxies.parse(text)).toBeUndefined(),
  );

  test.each(['constructor', '__proto__', 'proxy.example.com', '10.0.0', '::ffff:10.0.0.0/104', '10.0.0.1 10.0.0.2'])(
    '%p is none either',
    (text) => expect(TrustedProxies.parse(text)).toBeUndefined(),
  );
});
