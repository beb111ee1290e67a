// What a token grants: its `channels` claim, `{"posts": ["subscribe"], "chat:*": ["subscribe", "publish"]}`.

import type { Grant } from '../core/access.ts';
import { actions, type Action } from '../rules/config.ts';
import { ChannelPattern, patternFault } from '../rules/pattern.ts';
import { RealtimeError } from '../protocol/realtime-error.ts';

/** More would make each check long, and such a token would hardly fit a header. */
const grantsMax = 200;

/** Throws `unauthorized` on a claim of another shape: to read only half of it would grant what nobody meant. */
export function readGrants(claim: unknown): readonly Grant[] {
  if (claim === undefined) return [];
  if (typeof claim !== 'object' || claim === null || Array.isArray(claim)) throw malformed();
  const entries = Object.entries(claim);
  if (entries.length > grantsMax) throw malformed();
  return entries.map(([channels, granted]) => {
    // A capture would be as good as `*` here, and look as if it were not.
    if (channels.includes('{') || patternFault(channels) !== undefined || !isActionList(granted)) throw malformed();
    return { pattern: new ChannelPattern(channels), actions: new Set(granted) };
  });
}

function isActionList(value: unknown): value is Action[] {
  return Array.isArray(value) && value.every((action) => actions.includes(action as Action));
}

function malformed(): RealtimeError {
  return new RealtimeError('unauthorized', 'The "channels" claim is not {channel pattern: [actions]}.');
}
