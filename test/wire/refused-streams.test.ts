// A stream is a connection before it is known whether it may be: one that is refused is none afterwards.

import { expect, test } from 'bun:test';
import { Refused } from '../support/clients.ts';
import { secret, tokenOf } from '../support/tokens.ts';
import { describeWire, sample } from './wire.ts';

describeWire('Refused streams', (wire) => {
  test('leave no connection behind, and none that counts for their user', async () => {
    const server = await wire.start({ JWT_SECRET: secret, MAX_CONNECTIONS_PER_USER: '3' });
    const token = await tokenOf({ sub: 'ann', channels: { 'mine:*': ['subscribe'] } });
    for (let times = 0; times < 5; times++) {
      const query = `channels=mine:a,theirs:b&token=${token}`;
      const refusal = await wire.stream(server, { query }).catch((error: unknown) => error);
      expect(refusal).toBeInstanceOf(Refused);
      expect((refusal as Refused).status).toBe(403);
    }
    expect(await sample(server, 'sobranie_sse_connections_active')).toBe(0);
    const stream = await wire.stream(server, { query: `channels=mine:a&token=${token}` });
    expect((await stream.next('welcome')).frame.channels).toMatchObject([{ channel: 'mine:a' }]);
    expect(await sample(server, 'sobranie_sse_connections_active')).toBe(1);
  });
});
