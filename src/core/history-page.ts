// Bounds what one reply of history holds: a thousand publications of the largest size would be one frame of 64 MB.

import type { HistoryPage, HistoryQuery } from './sync-adapter.ts';

export const historyReplyBytesMax = 1 << 20;

/** The page as it is, or the part of it that fits, at least one publication; what is cut off can be asked for again. */
export function boundPage(page: HistoryPage, { since }: HistoryQuery, bytesMax = historyReplyBytesMax): HistoryPage {
  const { publications } = page;
  let bytes = 0;
  let count = 0;
  // After a position the first ones are kept, otherwise the newest.
  for (const publication of since === undefined ? publications.toReversed() : publications) {
    bytes += publication.data.length;
    if (count > 0 && bytes > bytesMax) break;
    count++;
  }
  if (count === publications.length) return page;
  const kept = since === undefined ? publications.slice(-count) : publications.slice(0, count);
  return { ...page, publications: kept, complete: false };
}
