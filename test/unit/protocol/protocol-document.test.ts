// The wire's document is true: its examples are frames that the code reads and writes, its tables say what the code
// says. Its clients are run by test/browser/document-clients.test.ts.

import { expect, test } from 'bun:test';
import { join } from 'node:path';
import { channelLengthMax, channelPart } from '../../../src/protocol/channel.ts';
import { errorCodes } from '../../../src/protocol/codes.ts';
import { commandTypes, decodeCommand, isRefused } from '../../../src/protocol/commands.ts';
import { decodeCursor } from '../../../src/protocol/cursor.ts';
import { settingsByKey } from '../../../src/settings/table.ts';
import { keepAliveSeconds } from '../../../src/transports/event-fanout.ts';

const text = await Bun.file(join(import.meta.dir, '../../../src/protocol/PROTOCOL.md')).text();

function blocks(language: string): string[] {
  return Array.from(
    text.matchAll(new RegExp(`\`\`\`${language}(?: [^\\n]*)?\\n(.*?)\`\`\``, 'gs')),
    (match) => match[1] ?? '',
  );
}

/** The objects of a block, each of which begins at a line's start. */
function objects(block: string): Readonly<Record<string, unknown>>[] {
  return block.split(/\n(?=\{)/).map((each) => JSON.parse(each) as Record<string, unknown>);
}

const both: readonly string[] = ['history', 'presence'];

test('every example of a command is a command, and every command has an example', () => {
  const examples = blocks('json').flatMap(objects);
  // These are replies too.
  const commands = examples.filter(
    ({ type }) => commandTypes.some((known) => known === type) && !both.includes(String(type)),
  );
  const shown = new Set(commands.map(({ type }) => type));
  expect(commandTypes.filter((type) => !shown.has(type) && !both.includes(type))).toEqual([]);
  for (const command of commands) expect(isRefused(decodeCommand(JSON.stringify(command)))).toBe(false);
  for (const type of both) {
    const [example] = examples.filter((each) => each['type'] === type && each['limit'] !== undefined);
    expect(isRefused(decodeCommand(JSON.stringify(example)))).toBe(false);
  }
});

test('the table of errors is the table of the code', () => {
  const rows = Array.from(text.matchAll(/^\| `(\w+)` +\|[^|]*\| (yes|no) +\| (\d+) +\|$/gm));
  const written = rows.map(([, code, retryable, status]) => [code, retryable === 'yes', Number(status)]);
  const coded = Object.entries(errorCodes).map(([code, { retryable, status }]) => [code, retryable, status]);
  expect<unknown>(written).toEqual(coded);
});

test('limits are those of the code', () => {
  expect(text).toContain(`1 to ${channelLengthMax} characters of`);
});

test('its function for values in names, and its examples of them, are as the code has it', () => {
  const [source = ''] = blocks('js').filter((block) => block.includes('function channelPart'));
  // oxlint-disable-next-line typescript/no-implied-eval
  const make = new Function(`${source}; return channelPart;`) as () => (value: string) => string;
  const documented = make();
  const rows = Array.from(text.matchAll(/^\| `(.*?)` +\| `user:([^…].*?)` +\|$/gm));
  expect(rows.length).toBe(5);
  for (const [, value = '', part] of rows) {
    const unescaped = value.replace('\\|', '|');
    expect<unknown>([documented(unescaped), channelPart(unescaped)]).toEqual([part, part]);
  }
  const marks = Array.from({ length: 0x250 }, (_, code) => String.fromCharCode(code)).join('');
  expect(documented(marks)).toBe(channelPart(marks));
});

test('the heartbeat in its examples is the default', () => {
  const shown = Array.from(text.matchAll(/"heartbeat": ?(\d+)/g), (match) => match[1]);
  expect(shown).toEqual([settingsByKey.heartbeat.default, String(keepAliveSeconds)]);
});

test('the cursors in it are cursors', () => {
  const cursors = Array.from(text.matchAll(/^id: (.*)$/gm), (match) => match[1] ?? '');
  const entries = cursors.map((cursor) => decodeCursor(cursor)?.entry('chat:42', 'k3f9a0'));
  expect(entries).toEqual([
    { kind: 'offset', offset: 21 },
    { kind: 'offset', offset: 22 },
  ]);
});
