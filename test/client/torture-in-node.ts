// A victim in Node: the engine and the address of the tormentor come as arguments, the reports go out as lines.

import { WebSocket } from 'ws';
import type { WebSocketLike } from '@sobranie/client';
import { suffer } from './torture-client.ts';

const [tormentor = '', engine = ''] = process.argv.slice(2);
const platform = { WebSocket: WebSocket as unknown as new (url: string, protocols?: string[]) => WebSocketLike };
const reports = await Promise.all([
  suffer(tormentor, engine, 'websocket', platform),
  suffer(tormentor, engine, 'sse', platform),
]);
console.log(JSON.stringify(reports));
process.exit(0);
