// Renders the hook of the document's snippet as a component does, and sends the first order that it shows. Given: the
// snippet's file.

import { GlobalRegistrator } from '@happy-dom/global-registrator';
import { createElement, StrictMode } from 'react';
import { createRoot } from 'react-dom/client';

interface Order {
  readonly id: number;
  readonly status: string;
}

interface Shown {
  readonly rows: readonly Order[];
  readonly status: string;
  readonly state: string;
  readonly here: readonly object[];
  send(order: Order): Promise<unknown>;
}

// The document alone: the runtime's own fetch and WebSocket reach the server.
const { fetch, WebSocket, Request, Response, Headers, AbortController, AbortSignal } = globalThis;
GlobalRegistrator.register();
Object.assign(globalThis, { fetch, WebSocket, Request, Response, Headers, AbortController, AbortSignal });

const [path = ''] = process.argv.slice(2);
const { useOrders } = (await import(path)) as { useOrders(user: string): Shown };
let isSent = false;
const Orders = (): null => {
  const { rows, status, state, here, send } = useOrders('ann');
  console.log(JSON.stringify({ rows, status, state, here: here.length }));
  const [order] = rows;
  if (status === 'live' && order !== undefined && !isSent) {
    isSent = true;
    void send(order);
  }
  return null;
};
const { document } = globalThis as unknown as { document: { createElement(name: string): Element } };
createRoot(document.createElement('div')).render(createElement(StrictMode, null, createElement(Orders)));
