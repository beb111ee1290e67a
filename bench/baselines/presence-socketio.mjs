// Socket.IO with its Redis adapter, as its documentation sets it up: each connection joins one room, and `GET /list`
// answers who is in it on all servers, by `fetchSockets`. Arguments: redis url.
import { createServer } from 'node:http';
import { createAdapter } from '@socket.io/redis-adapter';
import { Redis } from 'ioredis';
import { Server } from 'socket.io';

const publisher = new Redis(process.argv[2]);
const subscriber = publisher.duplicate();
const server = createServer((request, response) => {
  if (request.url !== '/list') return;
  void list(response);
});

async function list(response) {
  try {
    const sockets = await io.in('bench').fetchSockets();
    const members = sockets.map(({ id, data, handshake }) => ({ connection: id, data, since: handshake.issued }));
    response.setHeader('content-type', 'application/json');
    response.end(JSON.stringify({ count: members.length, members }));
  } catch (error) {
    response.writeHead(500).end(String(error));
  }
}

const io = new Server(server, {
  adapter: createAdapter(publisher, subscriber),
  transports: ['websocket'],
  perMessageDeflate: false,
});

io.on('connection', (socket) => {
  void socket.join('bench');
  socket.emit('subscribed');
});

subscriber.once('ready', () => {
  server.listen(0, '127.0.0.1', () => console.log(`listening on http://127.0.0.1:${server.address().port}`));
});
