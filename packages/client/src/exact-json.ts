// JSON without rounding: a number that a double cannot hold arrives as its own digits, in a string or a BigInt.
// JSON.parse rounds such numbers in silence; here they are put in quotes before it sees them.

/** How numbers arrive that JavaScript's own cannot hold: `bigint` is for integers, decimals are strings either way. */
export type ExactNumbers = 'string' | 'bigint';

/** Nothing shorter than 16 digits is rounded, and exponents are rare: most texts are never looked at closely. */
const suspicious = /\d[\d.]{15}|\d[eE]/;
const token = /"[^"\\]*(?:\\.[^"\\]*)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;

export function parseExact(text: string, numbers: ExactNumbers): unknown {
  if (!suspicious.test(text)) return JSON.parse(text);
  // Strings that begin with it are numbers of ours; no string of the text does.
  let mark = numbers === 'bigint' ? '#' : '';
  while (mark !== '' && text.includes(`"${mark}`)) mark += '#';
  const quoted = text.replace(token, (found) => {
    if (found[0] === '"' || isExact(found)) return found;
    return `"${/^-?\d+$/.test(found) ? mark : ''}${found}"`;
  });
  return mark === '' ? JSON.parse(quoted) : parseMarked(quoted, mark);
}

/** Strings that begin with the mark become integers. */
function parseMarked(text: string, mark: string): unknown {
  return JSON.parse(text, (_key, value: unknown) =>
    typeof value === 'string' && value.startsWith(mark) ? BigInt(value.slice(mark.length)) : value,
  );
}

/** BigInts go out as the numbers that they are where the runtime can write them so, else as strings. */
export function printExact(value: unknown, write: (integer: string) => unknown = rawJson ?? String): string {
  return JSON.stringify(value, (_key, member: unknown) => (typeof member === 'bigint' ? write(`${member}`) : member));
}

/**
 * The value as it is printed now, whatever becomes of it later. Throws what `JSON.stringify` throws, such as for an
 * object that holds itself.
 */
export function copyExact<Value>(value: Value): Value {
  // No string of the value begins with it.
  const mark = `${Math.random()} `;
  return parseMarked(
    printExact(value, (integer) => mark + integer),
    mark,
  ) as Value;
}

const { rawJSON: rawJson } = JSON as { rawJSON?: (text: string) => unknown };

function isExact(text: string): boolean {
  const value = Number(text);
  return /^-?\d+$/.test(text) ? Number.isSafeInteger(value) : digitsOf(text) === digitsOf(String(value));
}

/** The same text for the same value: digits without zeros around them, and where the point stands. */
function digitsOf(text: string): string {
  const [mantissa = '', exponent = '0'] = text.toLowerCase().split('e');
  const [whole = '', fraction = ''] = mantissa.replace('-', '').split('.');
  const digits = (whole + fraction).replace(/^0+/, '');
  const trimmed = digits.replace(/0+$/, '');
  return trimmed === '' ? '0' : `${trimmed}e${Number(exponent) - fraction.length + digits.length - trimmed.length}`;
}
