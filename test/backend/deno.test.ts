// The package for backends in Deno: each of its calls, against a real server.

import { expect, test } from 'bun:test';
import { join } from 'node:path';
import { startTestServer } from '@sobranie/server/testing';
import { send, watch } from '@sobranie/server';
import { denoProgram, withoutDeno } from '../../scripts/deno-program.ts';
import { temporaryFolder } from '../support/janitor.ts';
import { patient } from '../support/patience.ts';
import { secret } from '../support/tokens.ts';

patient();

const deno = denoProgram();

test.skipIf(deno === undefined)(`each call works in Deno${withoutDeno()}`, async () => {
  await using server = await startTestServer({ settings: { JWT_SECRET: secret } });
  const folder = temporaryFolder('deno');
  const { outputs, logs } = await Bun.build({
    entrypoints: [join(import.meta.dir, 'run-in-deno.ts')],
    target: 'browser',
    outdir: folder,
    naming: '[name].mjs',
  });
  const [script] = outputs;
  if (script === undefined) throw new Error(logs.map(String).join('\n'));
  const command = [deno ?? '', 'run', '--quiet', '--no-config', '--allow-net=127.0.0.1', script.path];
  const child = Bun.spawn([...command, server.url, server.apiKey, secret], {
    cwd: folder,
    env: { ...process.env, DENO_DIR: folder, DENO_NO_UPDATE_CHECK: '1', NO_PROXY: '127.0.0.1', NO_COLOR: '1' },
    stdin: 'ignore',
    stdout: 'pipe',
    stderr: 'pipe',
  });
  const [out, errors, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  expect({ code, errors }).toEqual({ code: 0, errors: '' });
  expect(JSON.parse(out)).toEqual({
    published: { channel: 'news', epoch: expect.any(String), offset: 1 },
    notified: { channel: 'user:ann', epoch: expect.any(String), offset: 1 },
    messages: [{ text: 'hello' }],
    ticket: 'string',
    disconnected: 0,
    refused: 'unauthorized',
    stream: 200,
    hook: [{ id: '1', event: 'user.online', user: 'ann', at: 1 }],
    sql: [watch('orders').text, send('news', 1).values],
  });
});
