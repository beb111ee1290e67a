// Victims in a program of their own, in Node or Bun: the address of the tormentor, the engine and a seed come as
// arguments, the reports go out as JSON.

import { WebSocket } from 'ws';
import type { SobranieOptions, WebSocketLike } from '@sobranie/client';
import { jumpClock, suffer } from './torture-client.ts';

const [tormentor = '', engine = '', seed = ''] = process.argv.slice(2);
jumpClock(Number(seed));
// Node 20 has no WebSocket of its own.
const platform: SobranieOptions['platform'] =
  process.versions['bun'] === undefined
    ? { WebSocket: WebSocket as unknown as new (url: string, protocols?: string[]) => WebSocketLike }
    : {};
const reports = await Promise.all([
  suffer(tormentor, engine, 'websocket', platform),
  suffer(tormentor, engine, 'sse', platform),
]);
console.log(JSON.stringify(reports));
process.exit(0);
