// Who may do what on this node: the rules of the configuration file, and the database's function if it has one.

import { DatabaseAuthorizer } from '../auth/database-authorizer.ts';
import { Decisions } from '../auth/decisions.ts';
import { RuleAccess } from '../auth/rule-access.ts';
import type { Clock } from '../time/clock.ts';
import type { Rules } from '../rules/rules.ts';
import { connect } from '../database/connect.ts';
import type { AccessMetrics } from '../metrics/access-metrics.ts';
import { RealtimeError } from '../protocol/realtime-error.ts';
import type { RulesTrial } from '../api/rights.ts';
import type { CloseStack } from './close-stack.ts';
import type { NodeDatabase } from './database.ts';
import type { Logger } from './logger.ts';
import { RulesError, type RulesSource } from '../settings/rules-file.ts';

export interface AccessParts {
  readonly rules: Rules;
  readonly file: RulesSource;
  readonly takesTokens: boolean;
  /** Undefined where there is none: then it has no say. */
  readonly database: NodeDatabase | undefined;
  readonly metrics: AccessMetrics;
  readonly clock: Clock;
  readonly log: Logger;
  readonly closing: CloseStack;
}

/**
 * Connections for the database's function, opened when needed. A call that hangs holds one until its deadline. So no user
 * has more than half of them, and connections without a user have no more than half together.
 */
const connectionsMax = 6;
const turns = {
  rules: { total: 500, each: 50, strangers: { total: 250, each: 5 } },
  database: {
    total: connectionsMax,
    each: connectionsMax / 2,
    strangers: { total: connectionsMax / 2, each: 1 },
  },
};

export interface NodeAccess {
  readonly access: RuleAccess;
  /** What reading the rules again would change; it changes nothing. */
  readonly tryRules: () => Promise<RulesTrial>;
}

export async function startAccess(parts: AccessParts): Promise<NodeAccess> {
  const { rules, file, takesTokens, database, metrics, clock, log, closing } = parts;
  const limits = () => access.rules.authorize;
  const decisions = (source: 'rules' | 'database'): Decisions => {
    const failed = (error: unknown, more: number) =>
      log.error({ err: error, more }, `authorize (${source}) failed: the callers get "unavailable"`);
    return new Decisions(
      { clock, failed, decided: (outcome) => metrics.authorized(source, outcome) },
      limits,
      turns[source],
    );
  };
  const authorizer =
    database &&
    new DatabaseAuthorizer({
      sql: connect(database.applicationUrl, {
        applicationName: database.applicationName,
        max: connectionsMax,
        pipelined: false,
      }),
      lookSql: database.sql,
      decisions: decisions('database'),
      log: (message, details) => ('err' in details ? log.warn(details, message) : log.info(details, message)),
    });
  closing.add('authorize', () => authorizer?.close());
  const access = new RuleAccess(rules, {
    isOpen: !takesTokens,
    decisions: decisions('rules'),
    database: authorizer,
    readRules: async () => {
      const trial = await tryRules(file, log);
      if ('faults' in trial)
        throw new RealtimeError('unavailable', 'The rules file is faulty; the old rules stay in force.');
      log.info({ file: file.path }, 'the rules were read again');
      const restart = restartsOf(trial.rules, rules);
      if (restart.length > 0) log.warn({ restart }, 'some of what the rules file says now waits for a restart');
      return trial.rules;
    },
  });
  await authorizer?.start();
  return {
    access,
    async tryRules() {
      const trial = await tryRules(file, log);
      return 'faults' in trial ? trial : { count: trial.rules.all.length - 1, restart: restartsOf(trial.rules, rules) };
    },
  };
}

/** What differs from the rules of the start, and cannot be changed while the process runs. */
function restartsOf(now: Rules, first: Rules): string[] {
  return [...now.logChanges(first), ...now.sourceChanges(first).map((name) => `sources: ${name}`)];
}

async function tryRules(file: RulesSource, log: Logger): Promise<{ rules: Rules } | { faults: readonly string[] }> {
  try {
    return { rules: await file.read() };
  } catch (error) {
    if (!(error instanceof RulesError)) throw error;
    log.error({ file: file.path, faults: error.faults }, 'the rules file is faulty: the old rules stay in force');
    return { faults: error.faults };
  }
}
