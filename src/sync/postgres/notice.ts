// The notice that the log has grown: `<seq> <writer>`, and if it was little, the publications themselves in pairs of
// lines: a header as a JSON array, then the data. The database makes it at the commit (`realtime.tell`), or, where a bus
// of its own carries it, the node that appended.

import type { LogRow } from '../../database/log-row.ts';

export interface LogNotice {
  /** The log reaches to here. */
  readonly seq: number;
  /** The application name of the session that appended. */
  readonly writer: string;
}

export function parseNotice(payload: string): LogNotice {
  const line = payload.indexOf('\n');
  const head = line === -1 ? payload : payload.slice(0, line);
  const space = head.indexOf(' ');
  return { seq: Number(head.slice(0, space)), writer: head.slice(space + 1) };
}

/** All of a publication but its data and its number in the log. */
type Header = readonly [
  channel: string,
  epoch: string,
  offset: number,
  at: number,
  user: string | null,
  connection: string | null,
  except: string | null,
  xid: string | null,
];

/** The publications that it carries, in the log's order, the last one at `seq`; none if it carries none. */
export function carriedRows(payload: string, seq: number): LogRow[] {
  const lines = payload.split('\n').slice(1);
  if (lines.length % 2 !== 0) throw new Error('a notification of the log was cut short');
  const count = lines.length / 2;
  return Array.from({ length: count }, (_, index) => {
    const [channel, epoch, offset, at, user, connection, except, xid] = JSON.parse(lines[index * 2] ?? '') as Header;
    const data = lines[index * 2 + 1] ?? '';
    return { seq: seq - count + 1 + index, channel, epoch, offset, data, at, user, connection, except, xid };
  });
}

/** Says no more than that the log reaches to here. */
export function plainNotice(seq: number, writer: string): string {
  return `${seq} ${writer}`;
}

const noticeCharactersMax = 128 << 10;

/**
 * The notices of rows that were just appended, in the order of the log, each `seq` one above the one before. Data that are
 * large, or of several lines, are left to the log.
 */
export function noticesOf(rows: readonly LogRow[], writer: string): string[] {
  const notices: string[] = [];
  let carried: string[] = [];
  let characters = 0;
  let last = 0;
  const finish = (): void => {
    if (last > 0) notices.push([plainNotice(last, writer), ...carried].join('\n'));
    carried = [];
    characters = 0;
    last = 0;
  };
  for (const row of rows) {
    const { seq, channel, epoch, offset, data, at, user, connection, except, xid } = row;
    const isCarried = data.length <= noticeCharactersMax && !data.includes('\n');
    const follows = seq === last + 1 && isCarried && carried.length > 0;
    if (last > 0 && (!follows || characters + data.length > noticeCharactersMax)) finish();
    last = seq;
    if (!isCarried) continue;
    carried.push(
      JSON.stringify([channel, epoch, offset, at, user, connection, except, xid ?? null] satisfies Header),
      data,
    );
    characters += data.length;
  }
  finish();
  return notices;
}
