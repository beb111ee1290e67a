// Blanks comments and strings out of TypeScript, so that rules look at code and not at words about it. A scanner, not
// a parser: it knows where comments, strings, templates and regular expressions begin and end, and nothing else.

export interface Blanked {
  /** Comments are blanks. */
  readonly uncommented: string;
  /** Comments and the insides of strings, templates and regular expressions are blanks. */
  readonly code: string;
}

/** After one of these a `/` divides nothing, so it opens a regular expression. */
const beforeExpression = /(^|[([{,;:=!&|?+\-*%<>~^]|\b(return|typeof|case|in|of|void|throw|await|yield|else))\s*$/;

export function blank(text: string): Blanked {
  return new Scanner(text).run();
}

class Scanner {
  readonly #text: string;
  readonly #uncommented: string[];
  readonly #code: string[];
  #at = 0;
  /** The last few characters of code: enough to tell a division from a regular expression. */
  #before = '';

  constructor(text: string) {
    this.#text = text;
    this.#uncommented = text.split('');
    this.#code = text.split('');
  }

  run(): Blanked {
    this.#scanCode('');
    return { uncommented: this.#uncommented.join(''), code: this.#code.join('') };
  }

  /** Scans until `end` closes what was opened: `}` for a template's expression, '' for the whole file. */
  #scanCode(end: string): void {
    let depth = 0;
    while (this.#at < this.#text.length) {
      const character = this.#text[this.#at] ?? '';
      const next = this.#text[this.#at + 1];
      if (character === '/' && next === '/') this.#skipComment('\n', 0);
      else if (character === '/' && next === '*') this.#skipComment('*/', 2);
      else if (character === "'" || character === '"') this.#skipQuoted(character);
      else if (character === '`') this.#skipTemplate();
      else if (character === '/' && beforeExpression.test(this.#before)) this.#skipRegExp();
      else {
        if (character === '{') depth++;
        if (character === '}' && end === '}' && depth-- === 0) return;
        this.#remember(character);
        this.#at++;
      }
    }
  }

  #remember(character: string): void {
    const isBlank = /\s/.test(character);
    // Words stay apart (`of` is a word, `typeof` another), while blanks after a sign say nothing.
    if (isBlank && !/\w$/.test(this.#before)) return;
    this.#before = (this.#before + (isBlank ? ' ' : character)).slice(-10);
  }

  #erase(from: number, to: number, alsoUncommented: boolean): void {
    for (let index = from; index < to; index++) {
      if (this.#text[index] === '\n') continue;
      this.#code[index] = ' ';
      if (alsoUncommented) this.#uncommented[index] = ' ';
    }
  }

  #skipComment(end: string, endLength: number): void {
    const found = this.#text.indexOf(end, this.#at + 2);
    const to = found === -1 ? this.#text.length : found + endLength;
    this.#erase(this.#at, to, true);
    this.#at = to;
  }

  #skipQuoted(quote: string): void {
    let to = this.#at + 1;
    while (to < this.#text.length && this.#text[to] !== quote && this.#text[to] !== '\n') {
      to += this.#text[to] === '\\' ? 2 : 1;
    }
    this.#erase(this.#at + 1, to, false);
    this.#at = to + 1;
    this.#before = quote;
  }

  #skipTemplate(): void {
    this.#at++;
    while (this.#at < this.#text.length && this.#text[this.#at] !== '`') {
      if (this.#text.startsWith('${', this.#at)) {
        this.#at += 2;
        this.#before = '{';
        this.#scanCode('}');
        this.#at++;
        continue;
      }
      const length = this.#text[this.#at] === '\\' ? 2 : 1;
      this.#erase(this.#at, this.#at + length, false);
      this.#at += length;
    }
    this.#at++;
    this.#before = '`';
  }

  #skipRegExp(): void {
    let to = this.#at + 1;
    let inClass = false;
    while (to < this.#text.length && this.#text[to] !== '\n') {
      const character = this.#text[to];
      if (character === '\\') to++;
      else if (character === '[') inClass = true;
      else if (character === ']') inClass = false;
      else if (character === '/' && !inClass) break;
      to++;
    }
    this.#erase(this.#at + 1, to, false);
    this.#at = to + 1;
    this.#before = ')';
  }
}
