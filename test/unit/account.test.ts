// The books of the loads, which say in the end whether anything is lost.

import { expect, test } from 'bun:test';
import { Account, type Ledger } from '../support/account.ts';

const at = (offset: number) => ({ epoch: 'e', offset });

function reader(account: Account, name: string): Ledger {
  const ledger = account.ledger(name);
  ledger.begin('rows', { type: 'subscribed', ...at(0) });
  return ledger;
}

function receive(ledger: Ledger, id: string, offset: number): void {
  ledger.message({ type: 'message', channel: 'rows', offset, data: { id } });
}

// A soak of twenty minutes lacked its last row at every reader, though nothing was lost. Each look at the books went
// through all 116,700 messages of six readers: half a second of the processor's time, and several on a busy machine, every
// five milliseconds. The readers and the proxies of all nodes live in the same process. They got no time in between, each
// command through them took longer than it may, and the row never got through.
test('a look at what is missing passes only what was missing before, and what came since', () => {
  const account = new Account();
  const ledger = reader(account, 'one');
  let asked = 0;
  const has = ledger.has.bind(ledger);
  ledger.has = (channel, id) => {
    asked++;
    return has(channel, id);
  };
  for (let number = 1; number <= 1_000; number++) {
    account.accept(`${number}`, 'rows');
    if (number < 1_000) receive(ledger, `${number}`, number);
  }
  expect(account.missing()).toEqual(['one lacks 1: rows 1000 at no place']);
  expect(asked).toBe(1_000);
  account.accept('1001', 'rows');
  expect(account.missingIds()).toEqual(['1000', '1001']);
  expect(asked).toBe(1_002);
  receive(ledger, '1000', 1_000);
  expect(account.missingIds()).toEqual(['1001']);
  receive(ledger, '1001', 1_001);
  expect(account.missing()).toEqual([]);
  expect(asked).toBe(1_005);
  account.missing();
  expect(asked).toBe(1_005);
});

test('what a gap stands for is not missing, from whenever it is told', () => {
  const account = new Account();
  const [first, second] = [reader(account, 'first'), reader(account, 'second')];
  for (let number = 1; number <= 3; number++) account.accept(`${number}`, 'rows');
  for (let number = 1; number <= 3; number++) receive(first, `${number}`, number);
  receive(second, '1', 1);
  expect(account.missing()).toEqual(['second lacks 2: rows 2 at rows e:2, rows 3 at rows e:3']);
  second.gap({ type: 'gap', channel: 'rows', reason: 'trimmed', ...at(2) });
  expect(account.missing()).toEqual(['second lacks 1: rows 3 at rows e:3']);
  expect(account.missingCount()).toBe(1);
  receive(second, '3', 3);
  expect(account.missing()).toEqual([]);
  expect(account.wrong()).toEqual([]);
});

// A stream of NATS that came back empty was made twice: some readers were told of the one in between, others never.
test('a change of the epoch stands for an epoch in between, and for none that came later', () => {
  const account = new Account();
  const [slow, quick] = [reader(account, 'slow'), reader(account, 'quick')];
  const changes = (ledger: Ledger, epoch: string): void =>
    ledger.gap({ type: 'gap', channel: 'rows', reason: 'epoch_changed', epoch, offset: 0 });
  changes(quick, 'between');
  account.accept('1', 'rows');
  receive(quick, '1', 1);
  expect(account.missing()).toEqual(['slow lacks 1: rows 1 at rows between:1']);
  changes(slow, 'new');
  changes(quick, 'new');
  expect(account.missing()).toEqual([]);
  changes(quick, 'newer');
  account.accept('2', 'rows');
  receive(quick, '2', 1);
  expect(account.missing()).toEqual(['slow lacks 1: rows 2 at rows newer:1']);
  expect(account.wrong()).toEqual([]);
});

test('who reads a channel later lacks what it did not get', () => {
  const account = new Account();
  const ledger = account.ledger('late');
  account.accept('1', 'rows');
  expect(account.missing()).toEqual([]);
  ledger.begin('rows', { type: 'subscribed', ...at(0) });
  expect(account.missingIds()).toEqual(['1']);
});
