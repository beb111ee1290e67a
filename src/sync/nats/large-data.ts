// Data that no header holds: in pieces, each a message of its own, that the server forgets when the channel's rule keeps
// the publication no longer.

import { headers } from '@nats-io/transport-node';
import { randomId, type Clock } from '../../time/clock.ts';
import type { NatsClient } from './connection.ts';
import { NatsRefusal, type StreamError } from './failure.ts';
import type { Elsewhere } from './message.ts';
import type { NatsNames } from './names.ts';
import type { NatsReads } from './reads.ts';

/** All headers of a message may have 64 kB; the sender takes some of it. */
export const headerBytesMax = 48 << 10;
/** A server takes a mebibyte in one message unless it is told otherwise. */
const pieceBytes = 512 << 10;
/** So long after the rule's age nobody reads the publication any more, whatever the clocks of nodes say. */
const spareSeconds = 300;

export interface LargeDataOptions {
  readonly client: NatsClient;
  readonly names: NatsNames;
  readonly clock: Clock;
}

/** Resolves when the server has all of it. */
export async function putLarge(text: string, seconds: number, options: LargeDataOptions): Promise<Elsewhere> {
  const { client, names, clock } = options;
  const bytes = new TextEncoder().encode(text);
  const id = randomId(clock, 20);
  const fields = headers();
  fields.set('Nats-TTL', `${seconds + spareSeconds}s`);
  const parts = Math.ceil(bytes.length / pieceBytes);
  for (let index = 0; index < parts; index++) {
    const piece = bytes.subarray(index * pieceBytes, (index + 1) * pieceBytes);
    const answer = await client.request(names.part(id, index), piece, fields);
    const { error } = answer.json<{ error?: StreamError }>();
    if (error !== undefined) throw new NatsRefusal(error);
  }
  return { id, parts, length: text.length };
}

/** Undefined when the server has forgotten some of it. */
export async function getLarge(
  { id, parts }: Elsewhere,
  names: NatsNames,
  reads: NatsReads,
): Promise<string | undefined> {
  const pieces: Uint8Array[] = [];
  for (let index = 0; index < parts; index++) {
    const found = await reads.message(names.dataStream, { last_by_subj: names.part(id, index) });
    if (found === null) return undefined;
    pieces.push(found.data);
  }
  return Buffer.concat(pieces).toString('utf8');
}
