// What an envelope begins with. A publication's begins with a brace; what else travels by the notifications of a log has
// a mark of its own.

/** Begins envelopes that are no publications. */
export const besideMark = '!';

const numberMark = '#';

/** The same envelope as its sender's next one: it may come by two ways. Numbers of one sender rise. */
export function numbered(sender: string, number: number, envelope: string): string {
  return `${numberMark}${sender} ${number}\n${envelope}`;
}

export interface Unnumbered {
  readonly envelope: string;
  /** Absent where it comes by one way alone. */
  readonly from?: { readonly sender: string; readonly number: number };
}

export function unnumbered(text: string): Unnumbered {
  if (!text.startsWith(numberMark)) return { envelope: text };
  const line = text.indexOf('\n');
  const [sender = '', number] = text.slice(numberMark.length, line).split(' ');
  return { envelope: text.slice(line + 1), from: { sender, number: Number(number) } };
}
