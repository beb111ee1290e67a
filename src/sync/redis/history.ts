// Turns what the read script answers into a page of history, within the channel's rule.

import { Publication } from '../../core/publication.ts';
import type { ChannelRule } from '../../rules/rules.ts';
import type { HistoryPage, HistoryQuery } from '../../core/sync-adapter.ts';
import { decodeSender } from './scripts.ts';

type StreamEntry = [id: string, fields: string[]];
export type ReadReply = [epoch: string, offset: string, now: string, entries: StreamEntry[]];

/** Without a rule everything that is stored counts. */
export function readPage(
  channel: string,
  [epoch, headOffset, now, entries]: ReadReply,
  rule: ChannelRule | undefined,
  { since, limit }: HistoryQuery,
): HistoryPage {
  const head = { epoch, offset: Number(headOffset) };
  const oldestAt = rule === undefined ? 0 : Number(now) - rule.historySeconds * 1_000;
  const after = rule === undefined ? 0 : head.offset - rule.historySize;
  const found = entries
    .map((entry) => toPublication(channel, epoch, entry))
    .filter(({ offset, at }) => offset > after && offset <= head.offset && at > oldestAt);
  if (since === undefined) {
    const publications = found.slice(0, limit).reverse();
    return { head, publications, complete: found.length <= limit };
  }
  if (since.epoch !== epoch || since.offset > head.offset) {
    return { head, publications: [], complete: false, gap: 'epoch_changed' };
  }
  const publications = found.slice(0, limit);
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
