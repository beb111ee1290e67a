// A `DATABASE_URL` that an application shares with Prisma ended with an error about an unknown setting `schema`.

import { expect, test } from 'bun:test';
import { driverUrl } from '../../src/database/connect.ts';

test('parameters of other clients are left out', () => {
  expect(driverUrl('postgres://a:b@c:1/d?schema=public')).toBe('postgres://a:b@c:1/d');
  expect(driverUrl('postgres://a@c,e:2/d?pgbouncer=true&sslmode=require&connection_limit=5')).toBe(
    'postgres://a@c,e:2/d?sslmode=require',
  );
  expect(driverUrl('postgres://a@c/d')).toBe('postgres://a@c/d');
});
