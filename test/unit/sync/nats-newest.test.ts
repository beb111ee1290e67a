// Thousands who ask for the newest entries of channels cost few questions, and each gets the entry of its own channel or its
// own failure.

import { expect, test } from 'bun:test';
import type { Entry } from '../../../src/sync/nats/message.ts';
import { NewestEntries, type Tried } from '../../../src/sync/nats/newest.ts';

function entryOf(subject: string): Entry {
  return { seq: Number(subject.slice(1)), offset: 1, at: 1, sender: {}, data: subject };
}

/** Of the subjects from s0 on; every tenth has no entry, and s7 has one that cannot be read. */
function answer(subject: string): Tried | undefined {
  if (subject.endsWith('0')) return undefined;
  return subject === 's7' ? { subject, error: new Error('no publication') } : { subject, entry: entryOf(subject) };
}

function staged(fails: (subjects: readonly string[]) => boolean = () => false) {
  const questions: (readonly string[])[] = [];
  const ask = async (subjects: readonly string[]): Promise<readonly Tried[]> => {
    questions.push(subjects);
    await Promise.resolve();
    if (fails(subjects)) throw new Error('away');
    // In the order of the stream.
    return subjects.flatMap((subject) => answer(subject) ?? []).reverse();
  };
  const one = async (subject: string): Promise<Entry | undefined> => {
    const [tried] = await ask([subject]);
    if (tried?.error instanceof Error) throw tried.error;
    return tried?.entry;
  };
  return { questions, newest: new NewestEntries({ one, many: ask }) };
}

test('one alone is asked for at once, and those of the same moment and of the time of a question go together', async () => {
  const { questions, newest } = staged();
  expect(await newest.ask('s1')).toEqual(entryOf('s1'));
  expect(questions).toEqual([['s1']]);
  const subjects = Array.from({ length: 1_000 }, (_, index) => `s${index}`);
  const asked = subjects.map((subject) => newest.ask(subject));
  // The same once more costs nothing.
  asked.push(newest.ask('s999'));
  const entries = await Promise.allSettled(asked);
  for (const [index, subject] of [...subjects, 's999'].entries()) {
    const got = entries[index];
    if (subject === 's7') expect(got).toMatchObject({ status: 'rejected', reason: { message: 'no publication' } });
    else expect(got).toEqual({ status: 'fulfilled', value: answer(subject)?.entry as Entry });
  }
  expect(questions).toHaveLength(1 + Math.ceil(1_000 / 64));
  expect(Math.max(...questions.map(({ length }) => length))).toBe(64);
});

test('a question that fails fails those who asked for it, and the next one is asked', async () => {
  const { newest } = staged((subjects) => subjects.includes('s1'));
  const asked = Array.from({ length: 100 }, (_, index) => newest.ask(`s${index}`));
  const answers = await Promise.allSettled(asked);
  expect(answers.map(({ status }) => status)).toEqual(
    answers.map((_, index) => (index < 64 ? 'rejected' : 'fulfilled')),
  );
  expect(await newest.ask('s2')).toEqual(entryOf('s2'));
});
