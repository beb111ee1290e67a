// Makes the driver's errors fit for a log. The driver attaches the command that failed with all of its arguments, so
// passwords and what people published would be written down.

/** The same error with no more than the command's name; likewise the errors that caused it. */
export function withoutArguments(error: unknown): unknown {
  if (!(error instanceof Error)) return error;
  const fields: Error & { command?: unknown; lastNodeError?: unknown } = error;
  const { command } = fields;
  if (typeof command === 'object' && command !== null && 'name' in command) fields.command = command.name;
  withoutArguments(fields.lastNodeError);
  withoutArguments(fields.cause);
  return error;
}
