// What a deployment writes into DATABASE_URL for its other programs was taken for something else, or ended in an error
// about the driver: several hosts were no URL, a socket's folder and Prisma's parameters became settings of PostgreSQL.
// The tables of the documentation are the cases.

import { describe, expect, test } from 'bun:test';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  leftOut,
  parseDatabaseUrl,
  placeOf,
  refused,
  shownDatabaseUrl,
  ownUrl,
  settledUrl,
  unpreparedUrl,
} from '../../src/database/url.ts';
import { readDocument, tableAfter } from '../support/documents.ts';
import { temporaryFolder } from '../support/janitor.ts';
import { faultsOf } from '../support/settings.ts';

const document = readDocument('docs/operate.md');
const formRows = tableAfter(document, '### The URL of the database');
const parameterRows = tableAfter(document, '`%` as `%25`');
const spans = (text = ''): string[] => Array.from(text.matchAll(/`([^`]+)`/g), ([, span = '']) => span);

const url = (query: string): string => `postgres://app@db/app?${query}`;
const fault = (text: string): string => {
  const faults = faultsOf({ DATABASE_URL: text });
  expect([text, faults.length]).toEqual([text, 1]);
  return faults[0]!;
};

describe('forms', () => {
  const places: Readonly<Record<string, string>> = {
    'postgres://user:password@host:5432/database': 'host:5432',
    'postgres://user@[2001:db8::1]:5432/database': '[2001:db8::1]:5432',
    'postgres://user@one:5432,two:5432/database': 'one:5432,two:5432',
    'postgres://user@/database?host=/var/run/postgresql': '/var/run/postgresql/.s.PGSQL.5432',
    'postgres://user@%2Fvar%2Frun%2Fpostgresql/database': '/var/run/postgresql/.s.PGSQL.5432',
    'postgres://user@localhost/database?host=/cloudsql/project:region:name':
      '/cloudsql/project:region:name/.s.PGSQL.5432',
  };

  test('those of the documentation lead where it says', () => {
    const forms = formRows.flatMap(([form]) => spans(form));
    expect(Object.fromEntries(forms.map((form) => [form, placeOf(parseDatabaseUrl(form))]))).toEqual(places);
    for (const form of forms) {
      const { user, database } = parseDatabaseUrl(form);
      expect([user, database]).toEqual(['user', 'database']);
      expect(faultsOf({ DATABASE_URL: form, DATABASE_URL_DIRECT: form })).toEqual([]);
    }
  });

  test('each part may stand where libpq lets it', () => {
    const whole = parseDatabaseUrl('postgresql:///?host=a,b&port=1,2&user=us%40er&password=p%23w&dbname=d%2Fb');
    expect(whole).toMatchObject({ user: 'us@er', password: 'p#w', database: 'd/b' });
    expect(whole.hosts).toEqual([
      { host: 'a', port: 1 },
      { host: 'b', port: 2 },
    ]);
    expect(placeOf(parseDatabaseUrl('postgres://a,b:2,c/d?port=7'))).toBe('a:7,b:2,c:7');
    expect(parseDatabaseUrl('postgres://u:p%40%2F%23w@h/d')).toMatchObject({ user: 'u', password: 'p@/#w' });
    expect(parseDatabaseUrl('postgres://u:a@b@h/d')).toMatchObject({ user: 'u', password: 'a@b' });
    expect(parseDatabaseUrl('postgres://h')).toMatchObject({
      user: undefined,
      password: undefined,
      database: undefined,
    });
  });

  test.each([
    ['jdbc:postgresql://db/app?user=a&password=hunter2', 'leave out jdbc:'],
    ['postgresql+asyncpg://app:hunter2@db/app', 'begin with postgres://'],
    ['prisma+postgres://db/?api_key=hunter2', 'the URL of the database itself'],
    ['host=db dbname=app password=hunter2', 'write it as a URL'],
    ['mysql://app:hunter2@db/app', 'is not a PostgreSQL URL such as'],
    ['postgres://app:hunter2@/app', 'a host is missing'],
    ['postgres://app:hunter2@one,,two/app', 'a host is missing'],
    ['postgres://app:hunter2@a b/app', 'a host is not valid'],
    ['postgres://app:hunter2@db:99999/app', 'a port is not a number'],
    ['postgres://app:hunter2@db/app?host=a,b&port=1,2,3', 'not as many ports as hosts'],
    ['postgres://app:hunter2@a,%2Frun/app', 'cannot be one of several hosts'],
    ['postgres://app:hunter2#@db/app', 'write # as %23'],
    ['postgres://app:hunter2/@db/app', 'write # as %23, / as %2F'],
    ['postgres://app:hunter2%@db/app', 'and % as %25'],
  ])('%s is refused with what to write', (text, words) => {
    const said = fault(text);
    expect(said).toContain(words);
    expect(said).not.toContain('hunter2');
  });

  test('shown without a password and without parameters', () => {
    expect(shownDatabaseUrl('postgres://app:secret@a,b/x?sslpassword=secret')).toBe('***');
    expect(shownDatabaseUrl('postgres://app:secret@a,b:1/x?sslmode=require')).toBe('postgres://app:***@a:5432,b:1/x');
    expect(shownDatabaseUrl('postgres://app@%2Frun/x?password=secret')).toBe(
      'postgres://app:***@/x?host=/run&port=5432',
    );
    expect(shownDatabaseUrl('perhaps secret')).toBe('***');
  });
});

describe('parameters', () => {
  test('the documentation names each that is left out or refused, and no other', () => {
    const named = (start: string): string[] =>
      parameterRows.filter(([, what]) => what?.startsWith(start)).flatMap(([names]) => spans(names));
    expect(named('left out').toSorted()).toEqual([...leftOut].toSorted());
    expect(named('refused').toSorted()).toEqual(Object.keys(refused).toSorted());
  });

  test('what is for other clients does not reach PostgreSQL', () => {
    const all = [...leftOut].map((name) => `${name}=x`).join('&');
    expect(parseDatabaseUrl(url(all)).session).toEqual({});
    const { session } = parseDatabaseUrl(url('schema=app&statement_timeout=5s&options=-c%20jit%3Doff'));
    expect(session).toEqual({ statement_timeout: '5s', options: '-c jit=off' });
  });

  test('what cannot be done is refused by its name', () => {
    for (const [name, instead] of Object.entries(refused)) {
      expect(fault(url(`${name}=hunter2`))).toContain(`the parameter ${name} is not taken: ${instead}`);
      expect(fault(url(`${name}=hunter2`))).not.toContain('hunter2');
    }
  });

  test('prepared statements, hosts and time', () => {
    expect(parseDatabaseUrl(url('pgbouncer=false')).prepared).toBe(true);
    for (const query of ['pgbouncer=true', 'prepare=false', 'statement_cache_size=0'])
      expect(parseDatabaseUrl(url(query)).prepared).toBe(false);
    for (const each of ['postgres://h/d', url('sslmode=require')])
      expect(parseDatabaseUrl(unpreparedUrl(each))).toEqual({ ...parseDatabaseUrl(each), prepared: false });
    expect(parseDatabaseUrl(url('target_session_attrs=any')).target).toBeUndefined();
    expect(parseDatabaseUrl(url('target_session_attrs=read-write')).target).toBe('read-write');
    expect(fault(url('target_session_attrs=standby'))).toContain('this server writes');
    expect(parseDatabaseUrl(url('connect_timeout=3')).connectSeconds).toBe(3);
    expect(fault(url('connect_timeout=soon'))).toContain('connect_timeout is not a number of seconds');
  });

  test('TLS as libpq means it', () => {
    const folder = temporaryFolder('tls');
    const [file, key] = [join(folder, 'ca.pem'), join(folder, 'key.pem')];
    const ca = 'of ours\n-----BEGIN CERTIFICATE-----\nMII';
    writeFileSync(file, ca);
    writeFileSync(key, '-----BEGIN RSA PRIVATE KEY-----\nMII');
    const tls = (query: string) => parseDatabaseUrl(url(query)).tls;
    expect(['', 'sslmode=disable', 'ssl=false'].map(tls)).toEqual([false, false, false]);
    expect(['sslmode=prefer', 'sslmode=allow'].map(tls)).toEqual(['prefer', 'prefer']);
    expect(['sslmode=require', 'ssl=true', 'sslmode=no-verify'].map(tls)).toEqual(['require', 'require', 'require']);
    expect(tls('sslmode=verify-full')).toEqual({ rejectUnauthorized: true });
    expect(tls(`sslmode=verify-full&sslrootcert=${file}`)).toEqual({ ca, rejectUnauthorized: true });
    for (const mode of ['verify-ca', 'require']) {
      const options = tls(`sslmode=${mode}&sslrootcert=${file}`);
      expect(options).toMatchObject({ ca, rejectUnauthorized: true });
      expect(options).toHaveProperty('checkServerIdentity');
    }
    expect(tls(`sslmode=require&sslcert=${file}&sslkey=${key}`)).toEqual({
      cert: ca,
      key: '-----BEGIN RSA PRIVATE KEY-----\nMII',
      rejectUnauthorized: false,
    });
    expect(fault(url(`sslrootcert=${file}`))).toContain('add sslmode=verify-full');
    expect(fault(url('sslmode=verify-full&sslrootcert=/nowhere'))).toContain('sslrootcert names cannot be read');
    // The server's certificate was said to be the wrong one.
    expect(fault(url(`sslmode=verify-full&sslrootcert=${key}`))).toContain(
      'sslrootcert names does not hold a certificate',
    );
    expect(fault(url(`sslmode=require&sslcert=${file}&sslkey=${file}`))).toContain(
      'sslkey names does not hold a private',
    );
    expect(fault(url('sslmode=maybe'))).toContain('sslmode must be');
    expect(parseDatabaseUrl('postgres://u@%2Frun/d?sslmode=require').tls).toBe(false);
  });
});

test('where a binding of the password to the connection is required, certificate and host are checked', () => {
  const url = 'postgres://app@db/shop';
  // As hosted databases hand it out.
  const bound = parseDatabaseUrl(`${url}?sslmode=require&channel_binding=require`);
  expect(bound.tls).toEqual({ rejectUnauthorized: true });
  expect(bound.session).toEqual({});
  expect(parseDatabaseUrl(`${url}?channel_binding=require`).tls).toEqual({ rejectUnauthorized: true });
  expect(parseDatabaseUrl(`${url}?sslmode=require&channel_binding=prefer`).tls).toBe('require');
  expect(fault(`${url}?sslmode=disable&channel_binding=require`)).toContain('needs TLS');
  expect(fault(`${url}?channel_binding=always`)).toContain('neither disable, prefer nor require');
});

test('sessions begin with what the server rests on, unless the URL says otherwise', () => {
  const url = settledUrl('postgres://app@db/shop?lock_timeout=5s');
  expect(parseDatabaseUrl(url).session).toMatchObject({
    default_transaction_isolation: 'read committed',
    statement_timeout: '0',
    lock_timeout: '5s',
  });
  expect(settledUrl(url)).toBe(url);
  // Those of the server's own statements look names up in PostgreSQL's schema alone, whatever the URL says.
  const own = ownUrl('postgres://app@db/shop?lock_timeout=5s&search_path=shop');
  expect(parseDatabaseUrl(own).session).toMatchObject({
    search_path: 'pg_catalog',
    'plpgsql.extra_errors': '',
    lock_timeout: '5s',
  });
  expect(ownUrl(own)).toBe(own);
  expect(parseDatabaseUrl(settledUrl('postgres://app@db/shop?search_path=shop')).session).toMatchObject({
    search_path: 'shop',
  });
});
