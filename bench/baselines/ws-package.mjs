// The usual server of the Node world: the `ws` package, and a loop of send() over the subscribers. The message is put
// together once and sent as one shared buffer, which is the quickest that this package offers.
import { WebSocketServer } from 'ws';

const channels = new Map();
const server = new WebSocketServer({ port: 0, host: '127.0.0.1', perMessageDeflate: false });

function subscribersOf(channel) {
  let subscribers = channels.get(channel);
  if (!subscribers) channels.set(channel, (subscribers = new Set()));
  return subscribers;
}

server.on('connection', (socket) => {
  const joined = new Set();
  socket.on('error', () => socket.terminate());
  socket.on('close', () => {
    for (const subscribers of joined) subscribers.delete(socket);
  });
  socket.on('message', (text) => {
    const { type, channel, data } = JSON.parse(text);
    const subscribers = subscribersOf(channel);
    if (type === 'subscribe') {
      joined.add(subscribers.add(socket));
      socket.send(`{"type":"subscribed","channel":"${channel}"}`);
      return;
    }
    const from = { user: null, connection: 'c0ffee00c0ffee00' };
    const message = Buffer.from(JSON.stringify({ type: 'message', channel, data, at: Date.now(), from }));
    for (const subscriber of subscribers) subscriber.send(message, { binary: false });
  });
});

server.on('listening', () => console.log(`listening on http://127.0.0.1:${server.address().port}`));
