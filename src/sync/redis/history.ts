// Turns what the read script answers into a page of history.

import { Publication } from '../../core/publication.ts';
import type { HistoryPage, HistoryQuery } from '../../core/sync-adapter.ts';
import { decodeSender } from './scripts.ts';

type StreamEntry = [id: string, fields: string[]];
export type ReadReply = [epoch: string, offset: string, entries: StreamEntry[], cut: number];

/** The script has read within the rule. Without a position, one entry more than `limit` tells that there is more. */
export function readPage(
  channel: string,
  [epoch, headOffset, entries, cut]: ReadReply,
  { since, limit }: HistoryQuery,
): HistoryPage {
  const head = { epoch, offset: Number(headOffset) };
  const found = entries
    .map((entry) => toPublication(channel, epoch, entry))
    .filter(({ offset }) => offset <= head.offset);
  if (since === undefined) {
    const publications = found.slice(0, limit).reverse();
    return { head, publications, complete: found.length <= limit && cut === 0 };
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
    data: values.get('d') ?? 'null',
    at: Number(values.get('a') ?? 0),
    ...decodeSender(values.get('m') ?? ''),
  });
}
