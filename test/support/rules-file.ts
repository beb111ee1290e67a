// A file of channel rules that tests write and rewrite. Its functions answer as the test says from outside, by a second
// file: they run in the server's process.

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { temporaryFolder } from './janitor.ts';

/** What the functions of the rules do when they are asked, by user; `*` is everyone else. A channel may say it: {answer}. */
export type Told = Readonly<Record<string, 'yes' | 'no' | 'later' | 'throws' | 'hangs' | 'odd'>>;

const folderOf = (path: string): string => join(path, '..');

export class TestRules {
  readonly path = join(temporaryFolder('rules'), 'realtime.config.ts');

  /** `rules` and `options` are source text: `asked` is a function that answers as it is told. */
  constructor(rules: string, told: Told = {}, options = '') {
    this.write(rules, options);
    this.tell(told);
  }

  write(rules: string, options = ''): void {
    this.writeText(`import { readFileSync } from 'node:fs';
const told = () => JSON.parse(readFileSync(${JSON.stringify(join(folderOf(this.path), 'told.json'))}, 'utf8'));
const asked = async ({ user, captures }) => {
  const answer = captures.answer ?? told()[user ?? 'nobody'] ?? told()['*'] ?? 'no';
  if (answer === 'hangs') return new Promise(() => undefined);
  if (answer === 'throws') throw new Error('the application is broken');
  if (answer === 'later') await new Promise((resolve) => setTimeout(resolve, 300));
  return answer === 'odd' ? 'yes' : answer === 'yes' || answer === 'later';
};
export default { rules: [${rules}], ${options} };
`);
  }

  writeText(text: string): void {
    writeFileSync(this.path, text);
  }

  tell(told: Told): void {
    writeFileSync(join(folderOf(this.path), 'told.json'), JSON.stringify(told));
  }
}
