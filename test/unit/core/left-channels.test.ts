// Nothing of a channel stays behind when nobody is subscribed any more, also where something was published in it a moment
// before: channels come and go by the million.

import { expect, test } from 'bun:test';
import { createHub } from '../../support/hub.ts';

const count = 300;

test('channels that were left are free, whatever was published in them', async () => {
  const { hub, connect } = createHub();
  const left: WeakRef<object>[] = [];
  for (let index = 0; index < count; index++) {
    const channel = `room:${index}`;
    const { send, outlet } = connect();
    await send({ type: 'subscribe', channel });
    await hub.publish({ channel, data: '1', source: 'server' });
    left.push(new WeakRef(await hub.open(channel)));
    outlet.cut();
  }
  expect(hub.channelCount).toBe(0);
  for (let turn = 0; turn < 5; turn++) {
    await Bun.sleep(0);
    Bun.gc(true);
  }
  // The collector may take a few for used that lie on the stack.
  expect(left.filter((channel) => channel.deref() !== undefined).length).toBeLessThan(count / 10);
});
