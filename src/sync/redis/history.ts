// Turns what the read script answers into a page of history.

import { Publication } from '../../core/publication.ts';
import type { HistoryPage, HistoryQuery } from '../../core/sync-adapter.ts';
import type { Position } from '../../protocol/position.ts';
import { unpack } from './packing.ts';
import { decodeSender } from './scripts.ts';

/** As bytes: text would be decoded as a whole, and each part of it would keep all of it in memory. */
export type ReadReply = [epoch: Buffer, offset: Buffer | number, entries: Buffer, cut: number];

const lineBreak = 10;

export function headOf([epoch, offset]: ReadReply): Position {
  return { epoch: epoch.toString(), offset: Number(offset.toString()) };
}

/**
 * The script has read within the rule. Without a position, one entry more than `limit` tells that there is more. It has
 * counted packed bytes, so unpacked ones are counted here again: what is past them is not unpacked.
 */
export function readPage(
  channel: string,
  reply: ReadReply,
  { since, limit, bytesMax }: HistoryQuery & { readonly bytesMax: number },
): HistoryPage {
  const head = headOf(reply);
  const { epoch } = head;
  const [, , entries, cut] = reply;
  const found: Publication[] = [];
  let bytes = 0;
  let isCut = cut !== 0;
  for (let at = 0; at < entries.length;) {
    const headEnd = entries.indexOf(lineBreak, at);
    const end = entries.indexOf(lineBreak, headEnd + 1);
    const dataEnd = end === -1 ? entries.length : end;
    const data = unpack(entries.toString('utf8', headEnd + 1, dataEnd));
    bytes += data.length;
    if (found.length > 0 && bytes > bytesMax) {
      isCut = true;
      break;
    }
    const publication = toPublication(channel, epoch, entries.toString('utf8', at, headEnd), data);
    if (publication.offset <= head.offset) found.push(publication);
    at = dataEnd + 1;
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

function toPublication(channel: string, epoch: string, head: string, data: string): Publication {
  const idEnd = head.indexOf(' ');
  const timeEnd = head.indexOf(' ', idEnd + 1);
  return new Publication({
    channel,
    epoch,
    offset: Number(head.slice(0, head.indexOf('-'))),
    data,
    at: Number(head.slice(idEnd + 1, timeEnd)),
    ...decodeSender(head.slice(timeEnd + 1)),
  });
}
