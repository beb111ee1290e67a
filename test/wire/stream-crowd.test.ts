// Event streams that come back at once. What some of them are sent alike is made once for all of those, whichever channels
// they have and wherever they stood: each gets what it lacks, and ids from which it can go on.

import { expect, test } from 'bun:test';
import { CursorWriter, decodeCursor } from '../../src/protocol/cursor.ts';
import type { EventClient, ReceivedEvent } from '../support/clients.ts';
import type { RunningServer } from '../support/process.ts';
import { until } from '../support/tcp-client.ts';
import { describeWire, publish, publishMany, type Wire } from './wire.ts';
import { patient } from '../support/patience.ts';

patient();

/** Where a client stood in each of its channels, in the order in which its stream names them. */
type Place = readonly (readonly [channel: string, offset: number])[];

/** Of each channel: over Redis no two have the same. */
type Epochs = ReadonlyMap<string, string>;

interface Back {
  readonly place: Place;
  readonly stream: EventClient;
  readonly events: ReceivedEvent[];
}

async function comeBack(wire: Wire, server: RunningServer, place: Place, epochs: Epochs): Promise<Back> {
  const channels = place.map(([channel]) => channel);
  const cursor = new CursorWriter(channels);
  for (const [channel, offset] of place) cursor.set(channel, { epoch: epochs.get(channel) ?? '', offset });
  const events: ReceivedEvent[] = [];
  const stream = await wire.stream(server, {
    query: `channels=${channels.join(',')}`,
    lastEventId: cursor.text(),
    onEvent: (event) => events.push(event),
  });
  return { place, stream, events };
}

function messagesOf({ events }: Back): ReceivedEvent[] {
  return events.filter(({ type }) => type === 'message');
}

/** Every message follows what the client had of its channel, its id says where the stream stands in all of them. */
function expectWhole({ place, events }: Back, heads: ReadonlyMap<string, number>, epochs: Epochs): void {
  const seen = new Map(place);
  expect(events[0]?.type).toBe('welcome');
  const wrong = events.slice(1).filter(({ type, frame: { channel = '', offset, data }, lastEventId }) => {
    const next = (seen.get(channel) ?? NaN) + 1;
    seen.set(channel, next);
    const cursor = decodeCursor(lastEventId);
    const isThere = [...seen].every(([name, at]) => {
      const entry = cursor?.entry(name, epochs.get(name) ?? '');
      return entry?.kind === 'offset' && entry.offset === at;
    });
    return type !== 'message' || offset !== next || data !== next || !isThere;
  });
  expect(wrong).toEqual([]);
  for (const [channel, offset] of seen) expect(offset).toBe(heads.get(channel) ?? NaN);
}

describeWire('Streams that come back at once', (wire) => {
  test('each gets what it lacks in its channels, once and in order, beside what is published meanwhile', async () => {
    const server = await wire.server();
    const [a, b, c] = [wire.channel(), wire.channel(), wire.channel()];
    const heads = new Map([
      [a, 150],
      [b, 130],
      [c, 20],
    ]);
    const epochs = new Map<string, string>();
    for (const [channel, count] of heads) epochs.set(channel, (await publishMany(server, channel, count)).epoch);
    const places: readonly Place[] = [
      [[a, 10]],
      [[a, 100]],
      [[b, 0]],
      [
        [a, 10],
        [b, 10],
      ],
      [
        [b, 10],
        [a, 10],
      ],
      [
        [a, 10],
        [b, 30],
      ],
      [
        [a, 10],
        [c, 20],
      ],
      [
        [c, 0],
        [a, 149],
        [b, 130],
      ],
    ];
    const opening = Promise.all(
      Array.from({ length: 5 }, () => places).flatMap((each) =>
        each.map((place) => comeBack(wire, server, place, epochs)),
      ),
    );
    for (let count = 0; count < 20; count++) {
      for (const channel of [a, b]) {
        const data = (heads.get(channel) ?? NaN) + 1;
        await publish(server, channel, data);
        heads.set(channel, data);
      }
    }
    const backs = await opening;
    const lack = (back: Back): number =>
      back.place.reduce((sum, [channel, offset]) => sum + (heads.get(channel) ?? NaN) - offset, 0);
    await until(() => backs.every((back) => messagesOf(back).length >= lack(back)), 'all caught up');
    for (const back of backs) expectWhole(back, heads, epochs);
  });

  test('one that does not read holds up none of those that are sent the same, and gets it later', async () => {
    const server = await wire.server();
    const channel = wire.channel();
    const { epoch } = await publish(server, channel, 1);
    const head = 900;
    const text = 'x'.repeat(7_500);
    const socket = await wire.socket(server);
    for (let count = 2; count <= head; count++) socket.send({ type: 'publish', channel, data: `${count} ${text}` });
    for (let count = 2; count <= head; count++) await socket.next('published');
    const backs = await Promise.all(
      Array.from({ length: 6 }, () => comeBack(wire, server, [[channel, 1]], new Map([[channel, epoch]]))),
    );
    const [slow, ...others] = backs;
    slow!.stream.pause();
    const isWhole = (back: Back): boolean => messagesOf(back).length >= head - 1;
    await until(() => others.every(isWhole), 'the others have all');
    slow!.stream.resume();
    await until(() => isWhole(slow!), 'the slow one has all');
    for (const back of backs) {
      const messages = messagesOf(back).map(({ frame: { offset, data } }) => [offset, data]);
      expect(messages).toEqual(Array.from({ length: head - 1 }, (_, index) => [index + 2, `${index + 2} ${text}`]));
      expect(back.events.map(({ type }) => type).filter((type) => type !== 'message')).toEqual(['welcome']);
    }
  });
});
