// Turns what the read script answers into a page of history.

import { Publication } from '../../core/publication.ts';
import type { HistoryPage, HistoryQuery } from '../../core/sync-adapter.ts';
import { unpack } from './packing.ts';
import { decodeSender } from './scripts.ts';

type StreamEntry = [id: string, fields: string[]];
export type ReadReply = [epoch: string, offset: string, entries: StreamEntry[], cut: number];

/**
 * The script has read within the rule. Without a position, one entry more than `limit` tells that there is more. It has
 * counted packed bytes, so unpacked ones are counted here again: what is past them is not unpacked.
 */
export function readPage(
  channel: string,
  [epoch, headOffset, entries, cut]: ReadReply,
  { since, limit, bytesMax }: HistoryQuery & { readonly bytesMax: number },
): HistoryPage {
  const head = { epoch, offset: Number(headOffset) };
  const found: Publication[] = [];
  let bytes = 0;
  let isCut = cut !== 0;
  for (const entry of entries) {
    const publication = toPublication(channel, epoch, entry);
    bytes += publication.data.length;
    if (found.length > 0 && bytes > bytesMax) {
      isCut = true;
      break;
    }
    if (publication.offset <= head.offset) found.push(publication);
  }
  if (since === undefined) {
    const publications = found.slice(0, limit).reverse();
    return { head, publications, complete: found.length <= limit && !isCut };
  }
  if (since.epoch !== epoch || since.offset > head.offset) {
    return { head, publications: [], complete: false, gap: 'epoch_changed' };
  }
  const publications = found;
  const first = publications[0]?.offset ?? head.offset + 1;
  if (first > since.offset + 1) return { head, publications, complete: false, gap: 'trimmed' };
  return { head, publications, complete: (publications.at(-1)?.offset ?? since.offset) === head.offset };
}

function toPublication(channel: string, epoch: string, [id, fields]: StreamEntry): Publication {
  const values = new Map<string, string>();
  for (let index = 0; index + 1 < fields.length; index += 2) values.set(fields[index] ?? '', fields[index + 1] ?? '');
  return new Publication({
    channel,
    epoch,
    offset: Number(id.slice(0, id.indexOf('-'))),
    data: unpack(values.get('d') ?? 'null'),
    at: Number(values.get('a') ?? 0),
    ...decodeSender(values.get('m') ?? ''),
  });
}
