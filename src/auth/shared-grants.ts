// What claims grant, held once for all who are granted the same. Most users of an application are, and each of their
// connections should hold little while it is idle.

import type { Grant } from '../core/access.ts';
import { readGrants } from './grants.ts';

interface SharedGrants {
  /** The claim, frozen: others hold it too. */
  readonly channels: unknown;
  readonly grants: readonly Grant[];
}

/** Where rights differ from user to user the oldest make room, and little is lost. */
const keptMax = 1_000;
const keptLengthMax = 1_000;

const kept = new Map<string, SharedGrants>();

/** Of a `channels` claim. Throws `unauthorized` for one of another shape. */
export function sharedGrants(channels: unknown): SharedGrants {
  const text = JSON.stringify(channels) ?? '';
  const known = kept.get(text);
  if (known !== undefined) return known;
  const shared = { channels: frozen(channels), grants: readGrants(channels) };
  if (text.length <= keptLengthMax) keep(text, shared);
  return shared;
}

function keep(text: string, shared: SharedGrants): void {
  const [oldest] = kept.size < keptMax ? [] : kept.keys();
  if (oldest !== undefined) kept.delete(oldest);
  kept.set(text, shared);
}

function frozen(claim: unknown): unknown {
  if (typeof claim === 'object' && claim !== null) for (const member of Object.values(claim)) Object.freeze(member);
  return Object.freeze(claim);
}
