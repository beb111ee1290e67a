// Where a reader stands in a channel's log.

/**
 * `offset` counts publications: 1 for a channel's first, +1 for each next, 0 for "before the first".
 * `epoch` names the log that is counted; it changes when that log was lost or reset, which makes older offsets void.
 */
export interface Position {
  readonly epoch: string;
  readonly offset: number;
}

export const epochLengthMax = 64;

export function isPosition(value: unknown): value is Position {
  if (typeof value !== 'object' || value === null) return false;
  const { epoch, offset } = value as Record<string, unknown>;
  return (
    typeof epoch === 'string' &&
    epoch.length <= epochLengthMax &&
    typeof offset === 'number' &&
    Number.isSafeInteger(offset) &&
    offset >= 0
  );
}
