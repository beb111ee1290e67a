// Headers are looked up in the bytes that came, beside the driver's map of them. Were a driver to change how a message lies
// in memory, the map would serve again, ten times slower: this test would tell.

import { connect, headers, type Msg } from '@nats-io/transport-node';
import { expect, test } from 'bun:test';
import { HeaderText, textOf } from '../../src/sync/nats/message-text.ts';
import { startNats } from '../support/nats.ts';
import { patient } from '../support/patience.ts';

patient();

const values = ['1', 'd{"text":"ü 👩"}.', 'NATS/1.0', 'Other: 2', '\\r\\n', ' : ', 'x'.repeat(60_000)];
const subjects = ['headers.a', 'headers.a/NATS/1.0', `headers.${'long'.repeat(50)}`];
const bodies = ['', 'Name: 3', 'NATS/1.0\r\nName: 4\r\nLate: 5\r\n\r\n', 'ü'.repeat(40_000)];

test('what is looked up in the bytes is what the driver’s map says, whatever the message holds', async () => {
  const nats = await startNats();
  const connection = await connect({ servers: nats.url });
  try {
    const received: Msg[] = [];
    connection.subscribe('headers.>', { callback: (_error, message) => void received.push(message) });
    let sent = 0;
    for (const subject of subjects) {
      for (const body of bodies) {
        for (const value of values) {
          const fields = headers();
          fields.set('Name', value);
          fields.append('Name', 'second');
          fields.set('Named', 'longer');
          connection.publish(subject, body, { headers: fields, ...(sent % 2 === 0 ? { reply: 'answers.b' } : {}) });
          sent++;
        }
        connection.publish(subject, body);
        sent++;
      }
    }
    await connection.flush();
    expect(received.length).toBe(sent);
    for (const message of received) {
      const { headers: fields, body } = textOf(message);
      expect(body).toBe(message.string());
      expect(fields instanceof HeaderText).toBe(message.headers !== undefined);
      for (const name of ['Name', 'Named', 'Other', 'Nam', 'Late']) {
        expect(fields.get(name)).toBe(message.headers?.get(name) ?? '');
      }
    }
  } finally {
    await connection.close();
    await nats.close();
  }
});

test('bytes that lie in another way are left to the driver’s map', () => {
  const fields = headers();
  fields.set('Name', 'of the map');
  // As long as headers would be, and none.
  const bytes = new TextEncoder().encode(`NATS/1.0\r\nName: of the bytes${'.'.repeat(20)}body`);
  const data = bytes.subarray(-4);
  const message = { subject: 's', data, headers: fields, size: () => 1 + bytes.length, string: () => 'body' };
  const text = textOf(message as unknown as Msg);
  expect([text.headers.get('Name'), text.body]).toEqual(['of the map', 'body']);
});
