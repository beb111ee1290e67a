// How this node learns who connects: by the tokens of the one key that is set, or not at all.

import { RemoteKeys } from '../auth/remote-keys.ts';
import { tokenAuthenticator } from '../auth/token-authenticator.ts';
import { publicKeys, remoteKeys, secretKeys, type TokenKeys } from '../auth/token-keys.ts';
import { everyoneAnonymous, type Authenticate } from '../core/access.ts';
import type { Clock } from '../core/clock.ts';
import type { CloseStack } from './close-stack.ts';
import type { Logger } from './logger.ts';
import type { Settings } from './settings.ts';

export interface IdentityParts {
  readonly settings: Settings;
  readonly clock: Clock;
  readonly log: Logger;
  readonly closing: CloseStack;
}

export interface NodeIdentity {
  readonly authenticate: Authenticate;
  /** Whether there is a key to check tokens by. */
  readonly takesTokens: boolean;
}

export function openIdentity(parts: IdentityParts): NodeIdentity {
  const { settings, clock } = parts;
  const keys = tokenKeys(parts);
  if (keys === undefined) return { authenticate: everyoneAnonymous, takesTokens: false };
  const authenticate = tokenAuthenticator({
    keys,
    audiences: settings.jwtAudience,
    issuers: settings.jwtIssuer,
    anonymousAllowed: settings.allowAnonymous,
    clock,
  });
  return { authenticate, takesTokens: true };
}

function tokenKeys({ settings, clock, log, closing }: IdentityParts): TokenKeys | undefined {
  const { jwtSecret, jwtPublicKey, jwksUrl } = settings;
  if (jwtSecret !== undefined) return secretKeys(jwtSecret);
  if (jwtPublicKey !== undefined) return publicKeys(jwtPublicKey);
  if (jwksUrl === undefined) return undefined;
  const remote = new RemoteKeys({
    url: jwksUrl,
    clock,
    log: (message, error) => log.error({ err: error }, message),
  });
  remote.start();
  closing.add('key set', () => remote.close());
  return remoteKeys(remote);
}
