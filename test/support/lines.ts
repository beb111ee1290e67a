// Splits what a socket brings into lines. Node's own splitter also takes characters for line ends that JSON may hold as
// they are.

import type { Socket } from 'node:net';

export function onLines(socket: Socket, take: (line: string) => void): void {
  let rest = '';
  socket.setEncoding('utf8');
  socket.on('data', (chunk) => {
    const lines = (rest + String(chunk)).split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) take(line);
  });
}
