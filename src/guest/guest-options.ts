// What a program may say in place of the server's environment and its configuration file.

import type { RealtimeConfig, RuleConfig } from '../rules/config.ts';

export interface GuestOptions {
  /** Channel rules, as `realtime.config.ts` has them. Default: those that the server ships with. */
  readonly rules?: readonly RuleConfig[];
  /** For all `authorize` functions of the rules. */
  readonly authorize?: NonNullable<RealtimeConfig['authorize']>;
  /** The server's settings by their names, such as `{ JWT_SECRET: '…' }`. Default: `process.env`. */
  readonly settings?: Readonly<Record<string, string | undefined>>;
}
