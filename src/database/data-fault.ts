// Which failures of a statement are about the values that it carries. The same values fail again: a retry does not help,
// and what is carried beside them is well.

/** SQLSTATE: data exceptions, limits of the program such as a value's size, data that is corrupted, and bugs met by it. */
const codes = /^(?:22...|54...|23505|XX00[012])$/;

/** The SQLSTATE of a failure about the data; undefined for any other failure. Looks at what caused the error too. */
export function dataFault(error: unknown): string | undefined {
  if (!(error instanceof Error)) return undefined;
  const { code } = error as Error & { readonly code?: unknown };
  if (typeof code === 'string' && codes.test(code)) return code;
  return dataFault(error.cause);
}
