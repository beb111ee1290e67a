// Follows one channel over WebSocket through cuts and restarts: it keeps the position of the last message and asks for
// what came after it. Nothing but the WebSocket of a browser or of Bun is used.
//
//   bun examples/client-websocket.ts [channel] [url]

interface Position {
  readonly epoch: string;
  readonly offset: number;
}

/** Of the server's frames, the members that this client reads. */
interface Frame extends Partial<Position> {
  readonly type: string;
  readonly data?: unknown;
  readonly after?: number;
  readonly recovered?: boolean;
  readonly reason?: string;
  readonly code?: string;
  readonly message?: string;
}

const [channel = 'posts', url = 'ws://localhost:3000/realtime/ws'] = process.argv.slice(2);
/** After these a new attempt would end the same way; after 1008 only its reason tells. */
const fatalCloseCodes = [1003, 1009];
const backoffMsMax = 30_000;
/** From then on a connection counts as good. */
const steadyMs = 10_000;

let position: Position | undefined;
let attempt = 0;

function connect(): void {
  const socket = new WebSocket(url);
  let steady: Timer | undefined;
  // Without a position `since` is left out: the subscription begins with what is published from now on.
  socket.onopen = () => socket.send(JSON.stringify({ type: 'subscribe', channel, since: position }));
  socket.onmessage = ({ data }) => {
    const frame = JSON.parse(String(data)) as Frame;
    // A server that lets clients in and cuts them at once must get fewer of them, not more.
    if (frame.type === 'welcome') steady = setTimeout(() => (attempt = 0), steadyMs);
    read(socket, frame);
  };
  socket.onclose = ({ code, reason }) => {
    clearTimeout(steady);
    if (fatalCloseCodes.includes(code) || (code === 1008 && reason !== 'rate_limited')) {
      console.error(`closed for good: ${code} ${reason}`);
      process.exitCode = 1;
      return;
    }
    // Full jitter: clients that were cut off together must not come back together.
    const waitMs = Math.random() * Math.min(backoffMsMax, 500 * 2 ** attempt++);
    console.log(`closed with ${code}; again in ${Math.round(waitMs)} ms`);
    setTimeout(connect, waitMs);
  };
}

function read(socket: WebSocket, frame: Frame): void {
  const { epoch, offset } = frame;
  switch (frame.type) {
    case 'subscribed':
      // With `since`, what was missed follows as messages, which move the position themselves.
      if (position === undefined && epoch !== undefined && offset !== undefined) position = { epoch, offset };
      console.log(`subscribed to ${channel}`, { position, recovered: frame.recovered });
      break;
    case 'message':
      // A message of an ephemeral channel has no offset.
      if (position !== undefined && offset !== undefined) position = { ...position, offset };
      console.log(offset ?? '-', JSON.stringify(frame.data));
      break;
    case 'gap':
      if (epoch !== undefined && offset !== undefined) position = { epoch, offset };
      console.log(`some may be missing (${frame.reason}): load again what the channel describes`);
      break;
    case 'drain':
      // The server is about to end, and tells each client its own moment to leave.
      setTimeout(() => socket.close(1000), frame.after ?? 0);
      break;
    case 'error':
      console.error(`${frame.code}: ${frame.message}`);
      break;
  }
}

connect();

export {};
