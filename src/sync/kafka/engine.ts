// The bus over Kafka as the row of its engine opens it. All else of the engine is the log in the database.

import { parseKafkaUrl } from '../../kafka/target.ts';
import type { EngineParts } from '../engine.ts';
import type { OwnBus } from '../log-bus.ts';
import { KafkaBus } from './bus.ts';

export interface KafkaSettings {
  readonly url: string;
  readonly tlsCa: string | undefined;
}

export function kafkaBus({ url, tlsCa }: KafkaSettings, { incarnation, clock, log }: EngineParts): OwnBus {
  const options = {
    target: { ...parseKafkaUrl(url), tlsCa },
    nodeId: incarnation,
    clock,
    waiting: (error: unknown) => log.warn({ err: error }, 'waiting for Kafka'),
  };
  return { name: 'kafka', open: (events) => new KafkaBus(options, events) };
}
