// The plain way from a row to a browser: a row trigger puts the row into pg_notify (row-notify.sql), one LISTEN
// connection takes it, and the payload goes to the table's native topic as it is. What nobody heard is lost.
// Arguments: the database's URL.
import postgres from 'postgres';
import { commandOf, listeningLine } from './wire.ts';

const url = process.argv[2];
if (!url) throw new Error('usage: row-notify.ts <database url>');

const server = Bun.serve({
  port: 0,
  hostname: '127.0.0.1',
  fetch(request, bunServer) {
    return bunServer.upgrade(request) ? undefined : new Response('expected a WebSocket', { status: 400 });
  },
  websocket: {
    backpressureLimit: 256 * 1024 * 1024,
    message(socket, text) {
      const { channel } = commandOf(text);
      socket.subscribe(channel);
      socket.send(`{"type":"subscribed","channel":"${channel}"}`);
    },
  },
});

const sql = postgres(url, { max: 1 });
await sql.listen('realtime_events', (payload) => {
  const { table } = JSON.parse(payload) as { table: string };
  server.publish(table, payload);
});

console.log(listeningLine(server.port));
