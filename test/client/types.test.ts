// What the packages' types let through, and what they stop before it runs: each right use compiles, each wrong one does not.

import { expect, test } from 'bun:test';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { endAfterTests } from '../support/janitor.ts';
import { patient } from '../support/patience.ts';

patient();

const root = join(import.meta.dir, '../..');
const folder = join(root, 'node_modules/.uses');

const prelude = `
import { liveTable, Sobranie, type Change } from '@sobranie/client';
import { useChannel, useLiveTable } from '@sobranie/react';
import { sobranieCollection } from '@sobranie/tanstack-db';
import { Backend, signToken, verifyHook, watch } from '@sobranie/server';
interface Order { id: number; status: string }
interface Channels { orders: Change<Order>; 'chat:*': { text: string }; news: string }
declare const client: Sobranie<Channels>;
declare const backend: Backend;
declare const room: string;
export const used = [liveTable, Sobranie, useChannel, useLiveTable, sobranieCollection, Backend, signToken, verifyHook, watch, client, backend, room];
`;

const right = [
  'client.channel(`chat:${room}`).publish({ text: room });',
  'liveTable(client, "orders", { key: "id" }).subscribe(({ rows }) => rows[0]?.status.length);',
  'liveTable(client, "orders", { key: (row) => row.id, load: async () => [{ id: 1, status: "new" }] });',
  'client.channel("news").subscribe(({ data }) => data.toUpperCase());',
  'export const View = () => useChannel(client, `chat:${room}`, ({ data }) => data.text.length);',
  'export const Rows = () => useLiveTable(client, "orders", { key: "id" }).rows.map(({ status }) => status);',
  'sobranieCollection(client, "orders", { key: "id" }).utils.table.rows[0]?.status.length;',
  'new Sobranie("/").channel("any").publish({ any: 1 });',
  'new Sobranie("/", { token: () => null, share: room, persist: sessionStorage });',
  'backend.ticket({ user: "ann", channels: { orders: ["subscribe", "presence"] } });',
];

const wrong = [
  'client.channel("order");',
  'client.channel("chat:1").publish({ txt: "a" });',
  'client.channel("news").publish(1);',
  'client.channel("news").history({ limit: "5" });',
  'client.on("state", () => undefined);',
  'liveTable(client, "orders", {});',
  'liveTable(client, "orders", { key: "ID" });',
  'liveTable(client, "orders", { key: "id", load: async () => [{ id: 1 }] });',
  'liveTable(client, "orders", { key: "id" }).subscribe(({ rows }) => rows[0]?.state);',
  'liveTable(client, "orders", { key: "id" }).put({ id: 1 }, async () => undefined);',
  'export const Rows = () => useLiveTable(client, "order", { key: "id" });',
  'sobranieCollection(client, "orders", { key: "ID" });',
  'new Sobranie("/", { tokens: () => null });',
  'new Sobranie("/", { token: "eyJ" });',
  'new Sobranie("/", { token: () => undefined });',
  'new Sobranie("/", { transport: "ws" });',
  'new Backend("http://localhost", { key: "k" });',
  'backend.publishAll("orders", 1);',
  'backend.ticket({});',
  'backend.ticket({ user: "ann", channels: { orders: ["read"] } });',
  'signToken({ sub: "ann", channels: { orders: ["read"] } }, { secret: "s" });',
  'signToken({ sub: "ann" }, {});',
  'verifyHook("body", { secret: "s" });',
  'watch("orders", { channels: "orders" });',
];

test('each right use compiles, and no wrong one does', async () => {
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  try {
    const files = [...right, ...wrong].map((use, index) => {
      const path = join(folder, `use-${index}.ts`);
      writeFileSync(path, `${prelude}\n${use}\n`);
      return path;
    });
    const config = { extends: '../../tsconfig.json', include: ['../../src/**/*.d.ts'], files };
    writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify(config));
    const check = Bun.spawn([join(root, 'node_modules/.bin/tsc'), '--noEmit', '-p', folder], { stdout: 'pipe' });
    endAfterTests(check);
    const printed = await check.stdout.text();
    const refused = new Set(Array.from(printed.matchAll(/use-(\d+)\.ts\(/g), ([, index]) => Number(index)));
    expect(
      right.filter((_use, index) => refused.has(index)),
      printed,
    ).toEqual([]);
    expect(wrong.filter((_use, index) => !refused.has(right.length + index))).toEqual([]);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}, 300_000);
