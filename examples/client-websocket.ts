// Follows one channel over WebSocket through cuts and restarts: it keeps the position of the last message and asks for
// what came after it. Nothing but the WebSocket of a browser or of Bun is used.
//
//   bun examples/client-websocket.ts [channel] [url] [token address]
//
// The token address is your own backend's: it answers a fresh token, as text, for the user of this client.

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
  readonly retryable?: boolean;
  readonly message?: string;
}

const [channel = 'posts', url = 'ws://localhost:3000/realtime/ws', tokenAddress] = process.argv.slice(2);
const backoffMsMax = 30_000;
/** Limits count by the minute. */
const rateLimitedMs = 60_000;
/** The server says something at least when it is asked: after four pings without an answer the link is dead. */
const pingEveryMs = 8_000;
const silenceMax = 3;
/** From then on a connection counts as good. */
const steadyMs = 10_000;

let position: Position | undefined;
let attempt = 0;

/** Each connection brings a fresh token: the one before it may have expired. */
async function open(): Promise<WebSocket> {
  if (tokenAddress === undefined) return new WebSocket(url);
  const response = await fetch(tokenAddress);
  if (!response.ok) throw new Error(`${tokenAddress} answered ${response.status}`);
  return new WebSocket(url, ['sobranie', `bearer.${await response.text()}`]);
}

async function connect(): Promise<void> {
  let socket: WebSocket;
  try {
    socket = await open();
  } catch (error) {
    retry(error instanceof Error ? error.message : String(error));
    return;
  }
  let steady: Timer | undefined;
  let silence = 0;
  let over = false;
  const pulse = setInterval(() => {
    if (++silence > silenceMax) end(() => retry('the link is dead'));
    else if (socket.readyState === WebSocket.OPEN) socket.send('{"type":"ping"}');
  }, pingEveryMs);
  // Once: a dead link closes minutes after it was given up.
  const end = (then: () => void): void => {
    if (over) return;
    over = true;
    clearInterval(pulse);
    clearTimeout(steady);
    socket.close();
    then();
  };
  // Without a position `since` is left out: the subscription begins with what is published from now on.
  socket.onopen = () => socket.send(JSON.stringify({ type: 'subscribe', channel, since: position }));
  socket.onmessage = ({ data }) => {
    silence = 0;
    const frame = JSON.parse(String(data)) as Frame;
    // A server that lets clients in and cuts them at once must get fewer of them, not more.
    if (frame.type === 'welcome') steady = setTimeout(() => (attempt = 0), steadyMs);
    if (frame.type === 'error' && frame.retryable === true) end(() => retry(`${frame.code}: ${frame.message}`));
    else read(socket, frame);
  };
  socket.onclose = ({ code, reason }) => {
    const why = `closed with ${code} ${reason}`.trim();
    end(() => {
      if (mayReturn(code, reason)) {
        retry(why, reason === 'rate_limited' ? rateLimitedMs : 0);
        return;
      }
      console.error(`${why}: another attempt would end the same way`);
      process.exitCode = 1;
    });
  };
}

/** 1008 stands for several things, which its reason tells apart. */
function mayReturn(code: number, reason: string): boolean {
  if (code === 1003 || code === 1009) return false;
  if (code !== 1008) return true;
  return reason === 'rate_limited' || (reason === 'token_expired' && tokenAddress !== undefined);
}

/** Full jitter: clients that were cut off together must not come back together. */
function retry(why: string, atLeastMs = 0): void {
  const waitMs = atLeastMs + Math.random() * Math.min(backoffMsMax, 500 * 2 ** attempt++);
  console.log(`${why}; again in ${Math.round(waitMs)} ms`);
  setTimeout(() => void connect(), waitMs);
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

void connect();

export {};
