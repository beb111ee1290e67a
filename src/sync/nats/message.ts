// The form of a publication in NATS. The server counts by the body of a message, so all else is in headers. All headers
// together may have 64 kB: larger data lie in messages of their own, and the header says where.

import { headers, type MsgHdrs } from '@nats-io/transport-node';
import type { Sender } from '../../core/publication.ts';
import type { HeaderFields } from './message-text.ts';

const metaHeader = 'Sobranie-Meta';
const dataHeader = 'Sobranie-Data';

export interface SenderFields {
  readonly from?: Sender | undefined;
  readonly except?: string | undefined;
  readonly xid?: string | undefined;
}

/** Data that lie elsewhere: `parts` messages, whose names begin with the id. */
export interface Elsewhere {
  readonly id: string;
  readonly parts: number;
  /** Characters of the data. */
  readonly length: number;
}

export interface Entry {
  /** Of the stream, over all channels. */
  readonly seq: number;
  readonly offset: number;
  readonly at: number;
  readonly sender: SenderFields;
  readonly data: string | Elsewhere;
}

export interface StoredMessage {
  readonly seq: number;
  readonly headers: HeaderFields;
  /** The count, as the server writes it. */
  readonly body: string;
}

/** The driver cuts blanks off both ends of a value, so data stand between a letter and a full stop. */
export function entryHeaders(at: number, sender: SenderFields, data: string | Elsewhere): MsgHdrs {
  const fields = headers();
  fields.set('Nats-Incr', '1');
  fields.set(metaHeader, `${at} ${JSON.stringify(sender)}`);
  const value = typeof data === 'string' ? `d${data}.` : `e${data.id} ${data.parts} ${data.length}.`;
  fields.set(dataHeader, value);
  return fields;
}

/** Of nearly all messages of backends. */
const noSender: SenderFields = {};

/** Throws when the message is none of this server. */
export function readEntry({ seq, headers: fields, body }: StoredMessage): Entry {
  const meta = fields.get(metaHeader);
  const value = fields.get(dataHeader);
  const offset = countIn(body);
  const blank = meta.indexOf(' ');
  if (offset === undefined || blank === -1 || value === '') throw new Error(`message ${seq} is no publication`);
  const text = value.slice(1, -1);
  const sender = meta.slice(blank + 1);
  return {
    seq,
    offset,
    at: Number(meta.slice(0, blank)),
    sender: sender === '{}' ? noSender : (JSON.parse(sender) as SenderFields),
    data: value.startsWith('d') ? text : readElsewhere(text),
  };
}

export function lengthOf({ data }: Entry): number {
  return data.length;
}

/** The number in an answer or a body such as `{"val":"7"}`. */
export function countIn(text: string): number | undefined {
  const digits = /"val"\s*:\s*"(\d+)"/.exec(text)?.[1];
  return digits === undefined ? undefined : Number(digits);
}

function readElsewhere(text: string): Elsewhere {
  const [id = '', parts, length] = text.split(' ');
  return { id, parts: Number(parts), length: Number(length) };
}
