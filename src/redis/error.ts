// The driver's errors, fit for a log: it attaches the command that failed with all of its arguments, so passwords and
// what people published would be written down.

/** The same error, with no more than the command's name, and so those that it was caused by. */
export function withoutArguments(error: unknown): unknown {
  if (!(error instanceof Error)) return error;
  const fields: Error & { command?: unknown; lastNodeError?: unknown } = error;
  const { command } = fields;
  if (typeof command === 'object' && command !== null && 'name' in command) fields.command = command.name;
  withoutArguments(fields.lastNodeError);
  withoutArguments(fields.cause);
  return error;
}
