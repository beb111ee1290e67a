// A log that is set back while this node waits for its sockets: what is left of the former one is not delivered, and hides
// nothing of the one that is.

import { expect, test } from 'bun:test';
import type { Database } from '../../../src/database/connect.ts';
import type { LogRow } from '../../../src/database/log-row.ts';
import { PostgresReader } from '../../../src/sync/postgres/reader.ts';
import { silentObserver } from '../../support/doubles.ts';
import { HandClock, idle } from '../../support/hub.ts';

function row(seq: number, epoch: string): LogRow {
  return {
    seq,
    channel: 'a',
    epoch,
    offset: seq,
    data: String(seq),
    at: 0,
    user: null,
    connection: null,
    except: null,
  };
}

test('the rest of a batch of the log from before is dropped', async () => {
  const heard: string[] = [];
  let waits: PromiseWithResolvers<void> | undefined = Promise.withResolvers<void>();
  const events = {
    publication: ({ epoch, offset }: { epoch: string; offset: number }) => void heard.push(`${epoch} ${offset}`),
    head: () => undefined,
    settled: () => waits?.promise,
  };
  const options = {
    sql: (() => Promise.resolve([])) as unknown as Database,
    clock: new HandClock(),
    observer: silentObserver,
    name: 'postgres',
    log: () => undefined,
  };
  const reader = new PostgresReader(options, events, 0);
  reader.add('a');
  void reader.hand([row(1, 'before'), row(2, 'before'), row(3, 'before')]);
  expect(heard).toEqual(['before 1']);
  reader.restart(0);
  const { resolve } = waits;
  waits = undefined;
  resolve();
  await idle();
  expect(reader.last).toBe(0);
  await reader.hand([row(1, 'after'), row(2, 'after')]);
  await reader.idle();
  expect(heard).toEqual(['before 1', 'after 1', 'after 2']);
  await reader.close();
});
