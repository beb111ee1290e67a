// JSON as text: takes a member out of an object without parsing and printing it, which would round large numbers and
// cost time.
// Works on text that JSON.parse has accepted; nothing here decides whether text is JSON.

const quote = 34;
const backslash = 92;
const openBrace = 123;
const closeBrace = 125;
const openBracket = 91;
const closeBracket = 93;
const comma = 44;

/**
 * The text of a top-level member's value, exactly as it stands; undefined when the object has no such member. Of
 * several with one name the last counts, as it does for JSON.parse. `json` is a valid JSON object.
 */
export function memberText(json: string, name: string): string | undefined {
  let found: string | undefined;
  let at = json.indexOf('{') + 1;
  for (;;) {
    const start = json.indexOf('"', at);
    if (start === -1) return found;
    const end = stringEnd(json, start);
    const valueStart = json.indexOf(':', end) + 1;
    const valueEnd = skipValue(json, valueStart);
    if (isName(json, start, end, name)) found = json.slice(valueStart, valueEnd).trim();
    if (json.charCodeAt(valueEnd) !== comma) return found;
    at = valueEnd + 1;
  }
}

/** A name may be written with escapes, which say the same. */
function isName(json: string, start: number, end: number, name: string): boolean {
  const raw = json.slice(start + 1, end - 1);
  return raw === name || (raw.includes('\\') && JSON.parse(json.slice(start, end)) === name);
}

/** Past the closing quote of the string that opens at `start`. */
function stringEnd(json: string, start: number): number {
  for (let at = start + 1; ; at++) {
    const code = json.charCodeAt(at);
    if (code === backslash) at++;
    else if (code === quote || Number.isNaN(code)) return at + 1;
  }
}

/** The `,` or `}` that ends a value of the top level, or the text's end. */
function skipValue(json: string, start: number): number {
  let depth = 0;
  for (let at = start; at < json.length; at++) {
    const code = json.charCodeAt(at);
    if (code === quote) at = stringEnd(json, at) - 1;
    else if (code === openBrace || code === openBracket) depth++;
    else if (depth === 0 && (code === comma || code === closeBrace)) return at;
    else if (code === closeBrace || code === closeBracket) depth--;
  }
  return json.length;
}

/** How deep brackets may be nested. Programs that read deeper data could overflow their stack. */
export const nestingMax = 1_000;

/** Reads the text only if it is long enough to be nested so deeply. */
export function isNestedTooDeeply(text: string): boolean {
  if (text.length <= 2 * nestingMax) return false;
  let depth = 0;
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at);
    if (code === quote) at = stringEnd(text, at) - 1;
    else if (code === openBracket || code === openBrace) {
      if (++depth > nestingMax) return true;
    } else if (code === closeBracket || code === closeBrace) depth--;
  }
  return false;
}

/** JSON on one line: raw line breaks stand only between tokens, where a space means the same. */
export function singleLine(json: string): string {
  return /[\n\r]/.test(json) ? json.replace(/[\n\r]/g, ' ') : json;
}
