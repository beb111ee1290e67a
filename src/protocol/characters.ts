// How long a text is. A character is what PostgreSQL, JSON schemas and most languages count; this one's `length` counts those
// past U+FFFF twice, so a key that SQL takes would be too long over HTTP.

/** Whether the text has at most so many characters. */
export function hasAtMost(text: string, charactersMax: number): boolean {
  if (text.length <= charactersMax) return true;
  return text.length <= 2 * charactersMax && Array.from(text).length <= charactersMax;
}
