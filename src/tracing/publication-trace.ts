// The trace of a publication, named by its position: every node derives the same ids from channel, epoch and offset. So
// all of them add to one trace, and nothing travels between them for it.

/** A span that others refer to. Hexadecimal, 32 and 16 digits. */
export interface SpanPlace {
  readonly traceId: string;
  readonly spanId: string;
}

export interface Place {
  readonly channel: string;
  readonly epoch: string;
  readonly offset: number;
}

const seeds = { traceHigh: 1n, traceLow: 2n, span: 3n };
/** A double is exact up to here. */
const precise = 2n ** 53n;

/** Its first span. Undefined for one that is not among the `share`, 0 to 1, that is traced: the same on every node. */
export function traceOf({ channel, epoch, offset }: Place, share: number): SpanPlace | undefined {
  const text = `${channel} ${epoch} ${offset}`;
  const low = Bun.hash.xxHash64(text, seeds.traceLow);
  if (Number(low % precise) / Number(precise) >= share) return undefined;
  const high = Bun.hash.xxHash64(text, seeds.traceHigh);
  return { traceId: digits(high) + digits(low), spanId: digits(Bun.hash.xxHash64(text, seeds.span)) };
}

/** All zeros stand for no id. */
function digits(value: bigint): string {
  return (value === 0n ? 1n : value).toString(16).padStart(16, '0');
}

const traceparentPattern = /^(?!ff)[\da-f]{2}-(?!0{32})([\da-f]{32})-(?!0{16})([\da-f]{16})-([\da-f]{2})(?:-.*)?$/;

/** The caller's span, by its W3C `traceparent`. Undefined where the text is none, or the caller keeps no record. */
export function callerOf(traceparent: string | undefined): SpanPlace | undefined {
  const [, traceId, spanId, flags = '0'] = traceparentPattern.exec(traceparent ?? '') ?? [];
  if (traceId === undefined || spanId === undefined || (Number.parseInt(flags, 16) & 1) === 0) return undefined;
  return { traceId, spanId };
}
