// The one expected failure of the embedded PostgreSQL. Its message is for the person at the terminal: it says what
// failed and what to do, so that the caller can print it and exit.

export class EmbeddedPostgresError extends Error {
  constructor(message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = 'EmbeddedPostgresError';
  }
}

/** The `code` of a failed system call, such as `ENOENT`; undefined for anything else. */
export function systemErrorCode(error: unknown): string | undefined {
  if (!(error instanceof Error) || !('code' in error)) return undefined;
  return typeof error.code === 'string' ? error.code : undefined;
}

/** A failure in one line, for a message that contains it. */
export function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
