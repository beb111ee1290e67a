// The topic of a log: one partition, since order is all that it is for, and a short past, since nobody reads it.

import { Admin, type BaseOptions } from '@platformatic/kafka';
import { endClients } from '../../kafka/end.ts';
import { KafkaFailure } from '../../kafka/failure.ts';
import { hearErrors } from '../../kafka/options.ts';
import type { Clock } from '../../time/clock.ts';

const limits: Readonly<Record<string, string>> = {
  'cleanup.policy': 'delete',
  // Five minutes, or 256 MiB and the segment that is written to.
  'retention.ms': String(5 * 60_000),
  'retention.bytes': String(256 << 20),
  'segment.ms': String(60_000),
  'segment.bytes': String(64 << 20),
  // An ephemeral publication is one message.
  'max.message.bytes': String(8 << 20),
};
const [knownTries, knownEveryMs] = [40, 50];

/** Makes the topic where it is missing. Resolves when it has a leader; rejects with a `KafkaFailure`. */
export async function ensureTopic(options: BaseOptions, topic: string, clock: Clock): Promise<void> {
  const admin = new Admin(options);
  hearErrors(admin.connections);
  try {
    if (await isKnown(admin, topic)) return;
    await create(admin, topic);
    for (let tries = 0; !(await isKnown(admin, topic)); tries++) {
      if (tries === knownTries) throw new Error(`the topic ${topic} was made, and is not there`);
      await clock.sleep(knownEveryMs);
    }
  } finally {
    await endClients([admin]);
  }
}

async function isKnown(admin: Admin, topic: string): Promise<boolean> {
  try {
    const { topics } = await admin.metadata({ topics: [topic], forceUpdate: true });
    return (topics.get(topic)?.partitions[0]?.leader ?? -1) >= 0;
  } catch (error) {
    // The driver keeps nothing of Kafka's answer but these words.
    if (error instanceof Error && error.message.startsWith('Unknown topic')) return false;
    const failure = new KafkaFailure(error, `Kafka does not tell of the topic ${topic}`);
    if (failure.code === 'LEADER_NOT_AVAILABLE') return false;
    throw failure;
  }
}

async function create(admin: Admin, topic: string): Promise<void> {
  const configs = Object.entries(limits).map(([name, value]) => ({ name, value }));
  try {
    // As many copies as the cluster makes by default.
    await admin.createTopics({ topics: [topic], partitions: 1, replicas: -1, configs });
  } catch (error) {
    const failure = new KafkaFailure(error, `Kafka does not make the topic ${topic}`);
    // Another node was faster.
    if (failure.code !== 'TOPIC_ALREADY_EXISTS') throw failure;
  }
}
