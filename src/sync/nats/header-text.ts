// The headers of a message as they came. The driver makes a map of them, which takes ten times as long as to look up the few
// that are wanted: of the fifty thousand messages of a crowd that was half a second.
//
// A message arrives as one piece, its headers first: its data are a view of the bytes behind them. Where another driver does
// otherwise, its map serves.

import type { Msg } from '@nats-io/transport-node';

export interface HeaderFields {
  /** The first value of this name, without blanks around it; empty if there is none. */
  get(name: string): string;
}

/** Bytes of the subject, the subject to reply to, headers and data. The driver's types leave it out. */
interface Sized {
  size?(): number;
}

const start = 'NATS/1.0\r\n';
const end = '\r\n\r\n';
const decoder = new TextDecoder();
const none: HeaderFields = { get: () => '' };

export function headersOf(message: Msg): HeaderFields {
  const text = textBefore(message);
  return text?.startsWith(start) === true && text.endsWith(end) ? new HeaderText(text) : (message.headers ?? none);
}

function textBefore(message: Msg & Sized): string | undefined {
  const { data, subject, reply = '' } = message;
  const length = (message.size?.() ?? 0) - subject.length - reply.length - data.length;
  const from = data.byteOffset - length;
  return length <= 0 || from < 0 ? undefined : decoder.decode(new Uint8Array(data.buffer, from, length));
}

export class HeaderText implements HeaderFields {
  readonly #text: string;

  constructor(text: string) {
    this.#text = text;
  }

  get(name: string): string {
    const before = `\r\n${name}:`;
    const at = this.#text.indexOf(before);
    if (at === -1) return '';
    const value = at + before.length;
    return this.#text.slice(value, this.#text.indexOf('\r\n', value)).trim();
  }
}
