// Bounds a page of history in bytes, for adapters whose log hands out whole pages.

import { pageBytesMax, type HistoryPage, type HistoryQuery } from '../core/sync-adapter.ts';

/** The page as it is, or the part of it that fits, at least one publication; what is cut off can be asked for again. */
export function boundPage(page: HistoryPage, { since, bytesMax = pageBytesMax }: HistoryQuery): HistoryPage {
  const { publications } = page;
  let bytes = 0;
  let count = 0;
  // After a position the first ones are kept, otherwise the newest.
  for (let index = 0; index < publications.length; index++) {
    bytes += publications.at(since === undefined ? -1 - index : index)?.data.length ?? 0;
    if (count > 0 && bytes > bytesMax) break;
    count++;
  }
  if (count === publications.length) return page;
  const kept = since === undefined ? publications.slice(-count) : publications.slice(0, count);
  return { ...page, publications: kept, complete: false };
}
