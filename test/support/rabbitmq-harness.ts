// The log in PostgreSQL with RabbitMQ as its bus, as the contract's tests want it.

import { RabbitBus } from '../../src/sync/rabbitmq/bus.ts';
import { parseRabbitUrl } from '../../src/rabbitmq/target.ts';
import type { OwnBus } from '../../src/sync/log-bus.ts';
import { systemClock } from '../../src/time/clock.ts';

export function rabbitBusAt(url: string, nodeId: string, tlsCa?: string): OwnBus {
  const target = { ...parseRabbitUrl(url), tlsCa };
  const options = { target, nodeId, clock: systemClock, waiting: () => undefined };
  return { name: 'rabbitmq', open: (events) => new RabbitBus(options, events) };
}
