// What a token grants: its `channels` claim, `{"posts": ["subscribe"], "chat:*": ["subscribe", "publish"]}`.

import type { Action, Grant } from '../core/access.ts';
import { channelPattern } from '../core/rules.ts';
import { RealtimeError } from '../protocol/realtime-error.ts';

const actions: readonly Action[] = ['subscribe', 'publish', 'history', 'presence'];
/** More would make each check long, and such a token would hardly fit a header. */
const grantsMax = 200;

/** Throws `unauthorized` on a claim of another shape: to read only half of it would grant what nobody meant. */
export function readGrants(claim: unknown): readonly Grant[] {
  if (claim === undefined) return [];
  if (typeof claim !== 'object' || claim === null || Array.isArray(claim)) throw malformed();
  const entries = Object.entries(claim);
  if (entries.length > grantsMax) throw malformed();
  return entries.map(([channels, granted]) => {
    const source = channelPattern(channels);
    if (source === undefined || !isActionList(granted)) throw malformed();
    return { matches: new RegExp(source), actions: new Set(granted) };
  });
}

function isActionList(value: unknown): value is Action[] {
  return Array.isArray(value) && value.every((action) => actions.includes(action as Action));
}

function malformed(): RealtimeError {
  return new RealtimeError('unauthorized', 'The "channels" claim is not {channel pattern: [actions]}.');
}
