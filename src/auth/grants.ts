// What a token grants: its `channels` claim, `{"posts": ["subscribe"], "chat:*": ["subscribe", "publish"]}`.
// Most users of an application have the same grants. These are held once for all of them, so that an idle connection
// costs little.

import type { Grant } from '../core/access.ts';
import { actions, type Action } from '../rules/config.ts';
import { ChannelPattern, patternFault } from '../rules/pattern.ts';
import { RealtimeError } from '../protocol/realtime-error.ts';

/** More would make every check long, and such a token would hardly fit into a header. */
const grantsMax = 200;

/** Throws `unauthorized` for a claim of another shape: reading only half of it would grant what nobody meant. */
export function readGrants(claim: unknown): readonly Grant[] {
  if (claim === undefined) return [];
  if (typeof claim !== 'object' || claim === null || Array.isArray(claim)) throw malformed();
  const entries = Object.entries(claim);
  if (entries.length > grantsMax) throw malformed();
  return entries.map(([channels, granted]) => {
    // A capture would match whatever `*` matches, and look as if it did not.
    if (channels.includes('{') || patternFault(channels) !== undefined || !isActionList(granted)) throw malformed();
    return { pattern: new ChannelPattern(channels), actions: new Set(granted) };
  });
}

interface SharedGrants {
  /** The claim, frozen: other identities hold it too. */
  readonly channels: unknown;
  readonly grants: readonly Grant[];
}

/** Where every user has other grants the oldest make room: then sharing saves little anyway. */
const keptMax = 1_000;
const keptLengthMax = 1_000;

const kept = new Map<string, SharedGrants>();

/** As `readGrants`: the same objects for every claim that says the same. */
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

function isActionList(value: unknown): value is Action[] {
  return Array.isArray(value) && value.every((action) => actions.includes(action as Action));
}

function malformed(): RealtimeError {
  return new RealtimeError('unauthorized', 'The "channels" claim is not {channel pattern: [actions]}.');
}
