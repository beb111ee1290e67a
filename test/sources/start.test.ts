// A source that cannot be what is meant stops the start, with every fault named; one whose stream or queue is not there yet
// does not, and is read once it is.

import { expect, test } from 'bun:test';
import { startNode, stopNodes } from '../support/nodes.ts';
import { patient } from '../support/patience.ts';
import { createDatabase } from '../support/postgres.ts';
import { spawnServer } from '../support/process.ts';
import { TestRules } from '../support/rules-file.ts';

patient();

const rulesWith = (sources: string): TestRules => new TestRules(`{ channels: '*' }`, {}, `sources: [${sources}]`);

test('faults of the configuration, each with its place', async () => {
  const { path } = rulesWith(`{ kafka: { channel: 'a' } }, { mqtt: { topic: 't' } }`);
  const server = spawnServer({ CONFIG_FILE: path });
  expect(await server.waitForExit()).toBe(78);
  expect(server.stderr() + server.stdout()).toContain('sources[0].kafka: `topic` is missing: what to read');
  expect(server.stderr() + server.stdout()).toContain(
    'sources[1]: mqtt is not one of kafka, rabbitmq, nats, redisStream',
  );
});

test('no broker is named, or a URL is none: passwords are not shown', async () => {
  const database = await createDatabase({ migrated: true });
  const { path } = rulesWith(
    `{ kafka: { topic: 't', channel: 'a' } }, { nats: { stream: 's', channel: 'a', url: 'http://me:secret@host' } }`,
  );
  const server = spawnServer({ CONFIG_FILE: path, DATABASE_URL: database.url });
  expect(await server.waitForExit()).toBe(78);
  const said = server.stderr() + server.stdout();
  expect(said).toContain('"kafka:t" has no `url`, and KAFKA_URL is not set: where is the broker?');
  expect(said).toContain('"nats:s": url: the URL does not have the form nats://');
  expect(said).not.toContain('secret');
  await database.drop();
});

test('a node whose ROLE has no relay reads nothing, and a broker that is nowhere does not matter to it', async () => {
  const database = await createDatabase({ migrated: true });
  const { path } = rulesWith(`{ redisStream: { key: 'k', channel: 'a', url: 'redis://127.0.0.1:1' } }`);
  const node = await startNode({ CONFIG_FILE: path, DATABASE_URL: database.url, ROLE: 'ws,api' });
  const response = await fetch(`${node.url}/health/ready`);
  expect(Object.keys(((await response.json()) as { checks: object }).checks)).not.toContain('sources');
  await stopNodes([node]);
  await database.drop();
});
