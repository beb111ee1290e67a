// The bus over RabbitMQ as the row of its engine opens it. All else of the engine is the log in the database.

import type { EngineParts } from '../engine.ts';
import type { OwnBus } from '../log-bus.ts';
import { RabbitBus } from './bus.ts';
import { parseRabbitUrl } from '../../rabbitmq/target.ts';

export interface RabbitSettings {
  readonly url: string;
  readonly tlsCa: string | undefined;
}

export function rabbitBus({ url, tlsCa }: RabbitSettings, { incarnation, clock, log }: EngineParts): OwnBus {
  const options = {
    target: { ...parseRabbitUrl(url), tlsCa },
    nodeId: incarnation,
    clock,
    waiting: (error: unknown) => log.warn({ err: error }, 'waiting for RabbitMQ'),
  };
  return { name: 'rabbitmq', open: (events) => new RabbitBus(options, events) };
}
