// What the checks of a configuration share. The file is not type-checked when it is read, so its values may be anything.

export type Members = Readonly<Record<string, unknown>>;
export type Report = (fault: string) => void;

export function isObject(value: unknown): value is Members {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** The member if it is an object; undefined if it is absent, or reported. */
export function objectMember(
  report: Report,
  where: string,
  value: unknown,
  known: readonly string[],
): Members | undefined {
  if (value === undefined) return undefined;
  if (!isObject(value)) {
    report(`${where}: is not an object`);
    return undefined;
  }
  checkMembers(report, `${where}.`, value, known);
  return value;
}

export function checkMembers(report: Report, where: string, value: Members, known: readonly string[]): void {
  for (const name of Object.keys(value)) {
    if (!known.includes(name)) report(`${where}${name}: there is no such member; known are ${known.join(', ')}`);
  }
}

export function shown(value: unknown): string {
  if (typeof value === 'object' && value !== null) return 'an object';
  return typeof value === 'string' ? `"${value}"` : String(value);
}
