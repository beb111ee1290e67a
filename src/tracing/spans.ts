// What tracing asks of whatever sends its spans. A span is told when it is over, so nothing of it is kept meanwhile.

import type { SpanPlace } from './publication-trace.ts';

export interface SpanFields {
  readonly name: string;
  readonly kind: 'producer' | 'internal' | 'consumer';
  /** Unix milliseconds, with fractions. */
  readonly from: number;
  readonly to: number;
  /** Absent: it begins a trace. */
  readonly parent?: SpanPlace | undefined;
  /** Its ids, where others derive them. */
  readonly own?: SpanPlace | undefined;
  readonly links?: readonly SpanPlace[];
  readonly attributes: Readonly<Record<string, string | number>>;
  readonly error?: string;
}

export interface Spans {
  /** Never throws, and waits for nothing. */
  add(span: SpanFields): void;
  /** Sends what waits, if the receiver takes it soon. Never rejects. */
  close(): Promise<void>;
}
