// Decides who may do what. The database's function decides first, if there is one, then the channel's rule. Some things
// no rule can change:
//
//   - clients never publish to the server's own channels, and subscribe to one only if a rule or a grant that begins
//     with `$` allows it
//   - `user:<id>` belongs to that user alone, unless a rule that begins with `user:` says otherwise
//   - a rule or a grant of `*` means the application's channels, and neither of those two
//
// Without a token key nobody can be told apart: everyone meets the conditions that need a token.

import type { Access, Identity } from '../core/access.ts';
import type { Action } from '../rules/config.ts';
import type { Who } from '../rules/config.ts';
import type { AccessRule, Rules } from '../rules/rules.ts';
import type { MaybePromise } from '../core/maybe-promise.ts';
import { isServerChannel, partValue } from '../protocol/channel.ts';
import type { DatabaseAuthorizer } from './database-authorizer.ts';
import { accountOf, claimsOf, type Decisions, type Question } from './decisions.ts';

export interface RuleAccessPorts {
  /** No token key is set. */
  readonly isOpen: boolean;
  /** Decisions of the rules' functions. */
  readonly decisions: Decisions;
  readonly database: DatabaseAuthorizer | undefined;
  /** Rejects with `unavailable` when the rules are faulty. */
  readonly readRules: () => Promise<Rules>;
}

const userNamespace = 'user:';
const byToken: ReadonlySet<Who> = new Set(['token']);
const byOwner: ReadonlySet<Who> = new Set();

export class RuleAccess implements Access {
  generation = 0;
  #rules: Rules;
  #readings = 0;
  /** The number of the reading that the rules in force come from. */
  #inForce = 0;
  readonly #ports: RuleAccessPorts;

  constructor(rules: Rules, ports: RuleAccessPorts) {
    this.#rules = rules;
    this.#ports = ports;
  }

  get rules(): Rules {
    return this.#rules;
  }

  may(identity: Identity, action: Action, channel: string, account = accountOf(identity)): MaybePromise<boolean> {
    const question = { identity, action, channel, account };
    const decision = this.#decide(question);
    if (!(decision instanceof Promise)) return decision;
    const { generation } = this;
    // A renewal came in between: the answer may be one that it was meant to end.
    return decision.then((yes) =>
      generation === this.generation ? yes : this.may(identity, action, channel, account),
    );
  }

  #decide(question: Question): MaybePromise<boolean> {
    const { action, channel } = question;
    if (action === 'publish' && isServerChannel(channel)) return false;
    const { database } = this.#ports;
    if (database === undefined) return this.#byRules(question);
    const decision = database.ask(question);
    if (decision === null) return this.#byRules(question);
    if (typeof decision === 'boolean') return decision;
    return decision.then((decided) => decided ?? this.#byRules(question));
  }

  subscribersMax(channel: string): number | undefined {
    return this.#rules.access(channel).subscribersMax;
  }

  joined(identity: Identity): readonly string[] {
    return this.#rules.joined(claimsOf(identity));
  }

  membersMax(channel: string): number {
    return this.#rules.access(channel).membersMax;
  }

  async renew(user: string | undefined): Promise<void> {
    const { database, decisions } = this.#ports;
    try {
      if (user === undefined) await this.#readRules();
    } finally {
      await database?.look();
      decisions.forget(user);
      database?.forget(user);
      // In the same step: every question from here on is decided again.
      this.generation++;
    }
  }

  /** A reading that ends after a later one may have read an older file, so it is dropped. */
  async #readRules(): Promise<void> {
    const reading = ++this.#readings;
    const rules = await this.#ports.readRules();
    if (reading > this.#inForce) [this.#rules, this.#inForce] = [rules, reading];
  }

  #byRules(question: Question): MaybePromise<boolean> {
    const { identity, action, channel } = question;
    const rule = this.#rules.access(channel);
    const who = this.#whoMay(rule, action, channel);
    if (who.has('everyone')) return true;
    if (who.has('nobody')) return false;
    const { isOpen } = this.#ports;
    // Everyone meets what needs a token.
    if (isOpen && !(who.size === 1 && who.has('authorize'))) return true;
    if (who === byOwner) return isOwnChannel(identity, channel);
    if (who.has('users') && identity.user !== null) return true;
    if (who.has('token') && isGranted(identity, action, channel)) return true;
    if (who.has('owner') && isOwner(identity, rule, channel)) return true;
    return who.has('authorize') && this.#authorize(question, rule);
  }

  #whoMay(rule: AccessRule, action: Action, channel: string): ReadonlySet<Who> {
    const said = rule.allow[action];
    const isServers = isServerChannel(channel);
    if (!isServers && !channel.startsWith(userNamespace)) return said ?? byToken;
    // A rule for all channels allows only the application's; what it forbids, it forbids here too.
    const isMeant = rule.pattern.text.startsWith(isServers ? '$' : userNamespace);
    if (said !== undefined && (isMeant || this.#ports.isOpen || said.has('nobody'))) return said;
    return isServers ? byToken : byOwner;
  }

  #authorize(question: Question, rule: AccessRule): MaybePromise<boolean> {
    const { identity, action, channel } = question;
    const { authorize, pattern } = rule;
    if (authorize === undefined) return false;
    const decision = this.#ports.decisions.ask(question, () => {
      const { user } = identity;
      return authorize({ user, claims: claimsOf(identity), channel, action, captures: pattern.capture(channel) });
    });
    // Nobody decides after the function, so `null` forbids.
    return decision instanceof Promise ? decision.then((decided) => decided === true) : decision === true;
  }
}

function isOwnChannel({ user }: Identity, channel: string): boolean {
  return user !== null && partValue(channel.slice(userNamespace.length)) === user;
}

/** Each capture must equal the claim of its name. Without that claim the channel is not the user's. */
function isOwner(identity: Identity, { pattern }: AccessRule, channel: string): boolean {
  const claims = claimsOf(identity);
  return pattern.everyCapture(channel, (name, value) => Object.hasOwn(claims, name) && isText(claims[name], value));
}

function isText(claim: unknown, value: string): boolean {
  return typeof claim === 'string' ? claim === value : Number.isSafeInteger(claim) && String(claim) === value;
}

function isGranted({ grants = [] }: Identity, action: Action, channel: string): boolean {
  const start = isServerChannel(channel) ? '$' : channel.startsWith(userNamespace) ? userNamespace : '';
  return grants.some(
    ({ pattern, actions }) => actions.has(action) && pattern.text.startsWith(start) && pattern.matches(channel),
  );
}
