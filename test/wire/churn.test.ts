// Cleaning is total: 10,000 connections come, subscribe and go, and nothing of them stays.

import { expect, test } from 'bun:test';
import { EventClient, WebSocketClient } from '../support/clients.ts';
import type { RunningServer } from '../support/process.ts';
import { until } from '../support/tcp-client.ts';
import { describeWire, sample } from './wire.ts';
import { patient } from '../support/patience.ts';

patient();

const mebibyte = 1_048_576;
const waveSize = 1_250;

/** Half of them sockets, half streams, each with a channel of its own and one that all share; then all are cut. */
async function wave(server: RunningServer, number: number, size: number): Promise<void> {
  const clients: { cut(): Promise<void> }[] = [];
  const open = async (index: number): Promise<void> => {
    const query = `channels=all,own:${number}-${index}`;
    const options = { query, timeoutMs: 10_000 };
    clients.push(
      await (index % 2 === 0 ? WebSocketClient.open(server.url, options) : EventClient.open(server.url, options)),
    );
  };
  // Bounded, so that the listen queue does not overflow.
  const indexes = Array.from({ length: size }, (_, index) => index).values();
  const opener = async (): Promise<void> => {
    for (const index of indexes) await open(index);
  };
  await Promise.all(Array.from({ length: 50 }, opener));
  const subscriptions = (): Promise<number> => sample(server, 'sobranie_subscriptions_active');
  await until(async () => (await subscriptions()) === 2 * size, 'all are subscribed', 10_000);
  expect(await sample(server, 'sobranie_channels_active')).toBe(size + 1);
  await Promise.all(clients.map((client) => client.cut()));
  await until(async () => (await subscriptions()) === 0, 'all have left', 10_000);
}

describeWire('Churn', (wire) => {
  test('10,000 connections in waves leave the maps empty and the memory where it was', async () => {
    const server = await wire.start();
    const usage = async (): Promise<{ resident: number; heap: number }> => ({
      resident: await sample(server, 'process_resident_memory_bytes'),
      heap: await sample(server, 'sobranie_heap_used_bytes'),
    });
    await wave(server, 0, 100);
    const fresh = await usage();
    for (let number = 1; number <= 8; number++) await wave(server, number, waveSize);
    for (const gauge of [
      'ws_connections_active',
      'sse_connections_active',
      'subscriptions_active',
      'channels_active',
    ]) {
      expect([gauge, await sample(server, `sobranie_${gauge}`)]).toEqual([gauge, 0]);
    }
    expect(await sample(server, 'sobranie_connections_total')).toBe(8 * waveSize + 100);
    // One object of 1 kB left by each would be 10 MB. More connections make the runtime collect its garbage sooner than
    // rest would.
    let grown = '';
    let number = 9;
    const settled = async (): Promise<boolean> => {
      await wave(server, number++, 300);
      const { resident, heap } = await usage();
      const [residentMiB, heapMiB] = [(resident - fresh.resident) / mebibyte, (heap - fresh.heap) / mebibyte];
      grown = `resident by ${residentMiB.toFixed(1)}, heap by ${heapMiB.toFixed(1)} MiB`;
      // Redis subscriptions are left some seconds late, so those of the last waves are still there.
      const heapMiBMax = wire.environment.name === 'redis' ? 24 : 6;
      return heapMiB < heapMiBMax && residentMiB < 64;
    };
    await until(settled, () => `the memory is back; it grew: ${grown}`, 25_000, 100);
  }, 60_000);
});
