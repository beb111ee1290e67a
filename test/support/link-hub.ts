// A hub behind a link on which nothing moves by itself: a test moves it.

import { createHub, HandClock, idle, type HubHarness, type HubHarnessOptions } from './hub.ts';
import { RoughLog, type RoughLink } from './rough-link.ts';

export interface LinkHarness extends HubHarness {
  readonly log: RoughLog;
  readonly link: RoughLink;
  /** Publishes to channel `a` past this node. */
  append(count?: number): void;
}

/** A hub behind a link on which nothing moves by itself. */
export function onLink(options: HubHarnessOptions = {}): LinkHarness {
  const clock = new HandClock();
  const log = new RoughLog(clock);
  const link = log.link();
  const harness = createHub({ clock, adapter: link, ...options });
  const rule = harness.rules.for('a');
  const append = (count = 1) => {
    for (let sent = 0; sent < count; sent++) log.memory.publish({ channel: 'a', rule, data: '0', at: clock.now() });
  };
  return { ...harness, log, link, append };
}

/** Lets requests, answers and events through until none is left. */
export async function flow(link: RoughLink): Promise<void> {
  for (;;) {
    await idle();
    if (!link.advance(0) && !link.deliver()) return;
  }
}
