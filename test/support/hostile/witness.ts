// A program: a client that does nothing wrong, while others attack the server. It publishes at a steady pace and reads
// what comes back over a WebSocket and an event stream, in a process of its own, so that neither the attackers nor the
// test delay its clock. Prints a line of JSON per tenth of a second, and one for each fault.

import { EventClient, WebSocketClient, type Frame } from '../clients.ts';

/** When it was sent (unix ms), and the milliseconds until each transport had it. */
export type Sample = readonly [sentAt: number, websocketMs: number, sseMs: number];

export interface Report {
  readonly samples?: readonly Sample[];
  readonly fault?: string;
}

const [url = '', token = ''] = process.argv.slice(2);
const pauseMs = 10;
const query = token === '' ? '' : `token=${token}`;
const channel = `witness:${crypto.randomUUID()}`;
const waiting = new Map<number, { sentAt: number; at: number; websocket?: number; sse?: number }>();
let samples: Sample[] = [];

function report(report: Report): void {
  process.stdout.write(`${JSON.stringify(report)}\n`);
}

function taker(transport: 'websocket' | 'sse'): (frame: Frame) => void {
  let next = 0;
  return (frame) => {
    const now = performance.now();
    if (frame.type === 'welcome' || frame.type === 'subscribed') return;
    if (frame.type !== 'message') {
      report({ fault: `${transport}: ${JSON.stringify(frame)}` });
      return;
    }
    const number = Number(frame.data);
    if (number !== next++) report({ fault: `${transport}: ${number} came where ${next - 1} was due` });
    next = number + 1;
    const sent = waiting.get(number);
    if (sent === undefined) return;
    sent[transport] = now - sent.at;
    if (sent.websocket === undefined || sent.sse === undefined) return;
    waiting.delete(number);
    samples.push([sent.sentAt, sent.websocket, sent.sse]);
  };
}

const takeText = taker('websocket');
const reader = await WebSocketClient.open(url, { query, onText: (text) => takeText(JSON.parse(text) as Frame) });
reader.send({ type: 'subscribe', channel });
const takeFrame = taker('sse');
const stream = await EventClient.open(url, {
  query: `channels=${channel}&${query}`,
  onEvent: ({ frame }) => takeFrame(frame),
});
const publisher = await WebSocketClient.open(url, {
  query,
  onText: (text) => {
    if (text.includes('"error"')) report({ fault: `publisher: ${text}` });
  },
});
for (const { closed } of [reader, stream, publisher]) {
  void closed.then((how) => report({ fault: `a connection was closed: ${JSON.stringify(how)}` }));
}
await Bun.sleep(200);

let number = 0;
setInterval(() => {
  waiting.set(number, { sentAt: Date.now(), at: performance.now() });
  publisher.send({ type: 'publish', channel, data: number++ });
}, pauseMs);

setInterval(() => {
  report({ samples });
  samples = [];
}, 100);
