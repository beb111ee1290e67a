// The suite in Node: a line of JSON for each case that has ended. Node 20 has no WebSocket, so it is given one.

import { WebSocket } from 'ws';
import type { WebSocketLike } from '@sobranie/client';
import { cases } from './cases.ts';
import { perform } from './stage.ts';

const [director = ''] = process.argv.slice(2);
const platform = { WebSocket: WebSocket as unknown as new (url: string, protocols?: string[]) => WebSocketLike };
await perform(cases, director, 'node', platform, (outcome) => console.log(JSON.stringify(outcome)));
process.exit(0);
