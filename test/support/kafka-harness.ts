// The log in PostgreSQL with Kafka as its bus, as the contract's tests want it.

import { KafkaBus } from '../../src/sync/kafka/bus.ts';
import { parseKafkaUrl } from '../../src/kafka/target.ts';
import type { OwnBus } from '../../src/sync/log-bus.ts';
import { systemClock } from '../../src/time/clock.ts';

export function kafkaBusAt(url: string, nodeId: string, tlsCa?: string): OwnBus {
  const target = { ...parseKafkaUrl(url), tlsCa };
  const options = { target, nodeId, clock: systemClock, waiting: () => undefined };
  return { name: 'kafka', open: (events) => new KafkaBus(options, events) };
}
