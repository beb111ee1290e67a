// Socket.IO with its Redis adapter, as its documentation sets it up: WebSocket only, no compression, ioredis. A
// connection joins the room named in its query; what arrives as `publish` is emitted to the whole room, on all servers.
// Arguments: redis url.
import { createServer } from 'node:http';
import { createAdapter } from '@socket.io/redis-adapter';
import { Redis } from 'ioredis';
import { Server } from 'socket.io';

const publisher = new Redis(process.argv[2]);
const subscriber = publisher.duplicate();
const server = createServer();
const io = new Server(server, {
  adapter: createAdapter(publisher, subscriber),
  transports: ['websocket'],
  perMessageDeflate: false,
});

io.on('connection', (socket) => {
  const { room } = socket.handshake.query;
  socket.on('publish', (data) => io.to('bench').emit('message', data));
  if (!room) return;
  // This adapter knows its rooms by itself, so there is nothing to wait for.
  void socket.join(room);
  socket.emit('subscribed');
});

subscriber.once('ready', () => {
  server.listen(0, '127.0.0.1', () => console.log(`listening on http://127.0.0.1:${server.address().port}`));
});
