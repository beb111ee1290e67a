// How this node learns who connects: by tokens, if a token key is set, and by tickets.

import { RemoteKeys } from '../auth/remote-keys.ts';
import type { TicketStore } from '../auth/ticket-store.ts';
import { takingTickets, Tickets } from '../auth/tickets.ts';
import { tokenAuthenticator } from '../auth/tokens.ts';
import { publicKeys, remoteKeys, secretKeys, type TokenKeys } from '../auth/token-keys.ts';
import { everyoneAnonymous, type Authenticate } from '../core/access.ts';
import type { Clock } from '../time/clock.ts';
import type { CloseStack } from './close-stack.ts';
import type { Logger } from './logger.ts';
import type { Settings } from '../settings/settings.ts';

export interface IdentityParts {
  readonly settings: Settings;
  /** The engine's. */
  readonly store: TicketStore;
  readonly clock: Clock;
  readonly log: Logger;
  readonly closing: CloseStack;
}

export interface NodeIdentity {
  /** Accepts tokens and tickets. */
  readonly authenticate: Authenticate;
  /** Accepts tokens alone; undefined without a token key. */
  readonly tokens: Authenticate | undefined;
  readonly tickets: Tickets;
}

export function openIdentity(parts: IdentityParts): NodeIdentity {
  const tickets = new Tickets(parts.store, parts.clock);
  const tokens = tokenCheck(parts);
  return { authenticate: takingTickets(tickets, tokens ?? everyoneAnonymous), tokens, tickets };
}

function tokenCheck(parts: IdentityParts): Authenticate | undefined {
  const { settings, clock } = parts;
  const keys = tokenKeys(parts);
  if (keys === undefined) return undefined;
  return tokenAuthenticator({
    keys,
    audiences: settings.jwtAudience,
    issuers: settings.jwtIssuer,
    anonymousAllowed: settings.allowAnonymous,
    clock,
  });
}

function tokenKeys({ settings, clock, log, closing }: IdentityParts): TokenKeys | undefined {
  const { jwtSecret, jwtPublicKey, jwksUrl } = settings;
  if (jwtSecret !== undefined) return secretKeys(jwtSecret);
  if (jwtPublicKey !== undefined) return publicKeys(jwtPublicKey);
  if (jwksUrl === undefined) return undefined;
  const remote = new RemoteKeys({
    url: jwksUrl,
    clock,
    log: (message, error) => (error === undefined ? log.info(message) : log.error({ err: error }, message)),
  });
  remote.start();
  closing.add('key set', () => remote.close());
  return remoteKeys(remote);
}
