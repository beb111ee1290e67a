// `bun run docs`: writes docs/settings.md and docs/metrics.md from the code, between the comments
// `<!-- generated -->` and `<!-- /generated -->`. A test tells when they are out of date.

import { engines } from '../src/app/engines.ts';
import { metricsTable } from '../src/metrics/table.ts';
import { transportKinds } from '../src/app/transports.ts';
import { settingsList } from '../src/settings/table.ts';
import { runToEnd } from './run-to-end.ts';

const documents = { settings: settingsList(engines), metrics: metricsTable(transportKinds) };
const place = /(<!-- generated -->\n)[^]*?(<!-- \/generated -->)/;

for (const [name, generated] of Object.entries(documents)) {
  const file = Bun.file(new URL(`../docs/${name}.md`, import.meta.url));
  const text = await file.text();
  if (!place.test(text)) {
    console.error(`docs/${name}.md has no <!-- generated --> … <!-- /generated --> to write between`);
    process.exit(1);
  }
  // A function, since a `$` of the text would be read as a reference.
  await file.write(text.replace(place, (_all, start: string, end: string) => `${start}\n${generated}\n\n${end}`));
}
// Formatters pad the cells of a table.
process.exit(await runToEnd([process.execPath, 'fmt', 'docs/settings.md', 'docs/metrics.md']));
