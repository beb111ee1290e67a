// The least a WebSocket server on Bun can do: parse the frame, put the message together, hand it to the native topic.
// No positions, no history, no limits, no answer to the publisher. It is what every feature of ours is paid against.
import { commandOf, listeningLine, messageText } from './wire.ts';

const server = Bun.serve({
  port: 0,
  hostname: '127.0.0.1',
  fetch(request, bunServer) {
    return bunServer.upgrade(request) ? undefined : new Response('expected a WebSocket', { status: 400 });
  },
  websocket: {
    perMessageDeflate: false,
    backpressureLimit: 16 * 1024 * 1024,
    message(socket, text) {
      const command = commandOf(text);
      if (command.type === 'subscribe') {
        socket.subscribe(command.channel);
        socket.send(`{"type":"subscribed","channel":"${command.channel}"}`);
      } else {
        server.publish(command.channel, messageText(command));
      }
    },
  },
});

console.log(listeningLine(server.port));
