// Starts an attack in a process of its own and tells what came of it.

import { join } from 'node:path';
import { spawnScript, type RunningServer } from '../process.ts';
import type { AttackName, AttackOptions, Outcome } from './attack.ts';

export interface RunningAttack {
  /** Resolves when all connections are there, for attacks that hold on. */
  readonly ready: (timeoutMs?: number) => Promise<Outcome>;
  /** Resolves when it has ended by itself. */
  readonly done: (timeoutMs?: number) => Promise<Outcome>;
  readonly end: () => Promise<void>;
}

export function startAttack(server: RunningServer, name: AttackName, options: AttackOptions): RunningAttack {
  const script = join(import.meta.dir, 'attack.ts');
  const process = spawnScript(script, {}, [server.url, name, JSON.stringify(options)]);
  const said = async (what: string, timeoutMs: number): Promise<Outcome> => {
    const [, text = ''] = await process.waitForOutput(new RegExp(`^${what} (.*)$`, 'm'), timeoutMs);
    return JSON.parse(text) as Outcome;
  };
  return {
    ready: (timeoutMs = 60_000) => said('ready', timeoutMs),
    done: (timeoutMs = 120_000) => said('done', timeoutMs),
    end: () => process.kill9(),
  };
}

/** One that ends by itself. */
export async function attack(
  server: RunningServer,
  name: AttackName,
  options: AttackOptions,
  timeoutMs?: number,
): Promise<Outcome> {
  return startAttack(server, name, options).done(timeoutMs);
}
