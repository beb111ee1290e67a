// Who may do what when tokens are in use: what the token grants, and one's own `user:` channel. Nothing else.

import type { Access, Action, Identity } from '../core/access.ts';
import { isServerChannel } from '../protocol/channel.ts';

const userNamespace = 'user:';

export const tokenAccess: Access = {
  may: (identity, action, channel) => {
    // The server's own channels are written by the server alone, whatever a token says.
    if (action === 'publish' && isServerChannel(channel)) return false;
    if (channel.startsWith(userNamespace)) return isOwn(identity, channel);
    return isGranted(identity, action, channel);
  },
  renew: () => Promise.resolve(),
};

/** Not even a token that grants `*` opens what is somebody's own. */
function isOwn(identity: Identity, channel: string): boolean {
  return identity.user !== null && channel.slice(userNamespace.length) === identity.user;
}

function isGranted(identity: Identity, action: Action, channel: string): boolean {
  // A wildcard means channels of the application; the server's own must be named.
  const granted = isServerChannel(channel) ? namesServerChannels : () => true;
  return (identity.grants ?? []).some(
    (grant) => grant.actions.has(action) && granted(grant.matches) && grant.matches.test(channel),
  );
}

function namesServerChannels(expression: RegExp): boolean {
  return expression.source.startsWith('^\\$');
}
