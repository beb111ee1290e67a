// Writes the table of settings into README.md, between the comments `<!-- settings -->` and `<!-- /settings -->`.

import { settingsTable } from '../src/settings/table.ts';

const readme = Bun.file(new URL('../README.md', import.meta.url));
const text = await readme.text();
const place = /(<!-- settings -->\n)[^]*?(<!-- \/settings -->)/;
if (!place.test(text)) {
  console.error('README.md has no <!-- settings --> … <!-- /settings --> to write between');
  process.exit(1);
}
// A function, since the table's own `$` would be read as a reference in a replacement text.
await readme.write(text.replace(place, (_all, start: string, end: string) => `${start}\n${settingsTable()}\n\n${end}`));
