// Which pages may call the API. A server without an API key believes every caller: any site could act through its visitors.

import { expect, test } from 'bun:test';
import { Origins } from '../../../src/http/origins.ts';

const own = 'https://live.example';
const [app, other] = ['https://app.example', 'https://other.example'];

function request(origin?: string, more: Record<string, string> = {}): Request {
  const headers = { host: 'live.example', ...(origin === undefined ? {} : { origin }), ...more };
  return new Request(`${own}/realtime/publish`, { method: 'POST', headers });
}

function mayCall(allowed: readonly string[] | undefined, ...args: Parameters<typeof request>): boolean {
  try {
    new Origins(allowed).checkCaller(request(...args));
    return true;
  } catch {
    return false;
  }
}

test('pages of other origins may call the API only where ALLOWED_ORIGINS names them, or says that all may', () => {
  const table: readonly [readonly string[] | undefined, boolean, boolean][] = [
    // what is allowed, a page of the application, a page of anybody
    [undefined, false, false],
    [[app], true, false],
    [['*'], true, true],
  ];
  for (const [allowed, ofApp, ofOther] of table) {
    expect([allowed, mayCall(allowed, app), mayCall(allowed, other)]).toEqual([allowed, ofApp, ofOther]);
    // Programs, own pages, and own pages behind a proxy that changes the host.
    expect([mayCall(allowed), mayCall(allowed, own)]).toEqual([true, true]);
    expect(mayCall(allowed, other, { 'sec-fetch-site': 'same-origin' })).toBe(true);
    expect(mayCall(allowed, other, { 'sec-fetch-site': 'cross-site' })).toBe(ofOther);
    // Who may not call may not read either.
    const { 'access-control-allow-origin': readable } = new Origins(allowed).apiHeaders(request(other));
    expect([allowed, readable !== undefined]).toEqual([allowed, ofOther]);
  }
});
