// One setting: an environment variable, the kind of its value, and what it means.

import type { Kind } from './kinds.ts';

export interface Setting<T> {
  /** The environment variable. */
  readonly name: string;
  readonly kind: Kind<T & {}>;
  /** Read as if it had been set; undefined when unset is a state of its own. */
  readonly default: string | undefined;
  /** What it means to leave it unset, for settings without a plain default. */
  readonly unset: string | undefined;
  readonly doc: string;
}

type ValueOf<S> = S extends Setting<infer T> ? T : never;

export type SettingsByKey = Readonly<Record<string, Setting<unknown>>>;
export type ValuesOf<S extends SettingsByKey> = { readonly [Key in keyof S]: ValueOf<S[Key]> };

export function defaulted<T extends {}>(name: string, kind: Kind<T>, standard: string, doc: string): Setting<T> {
  return { name, kind, default: standard, unset: undefined, doc };
}

export function optional<T extends {}>(
  name: string,
  kind: Kind<T>,
  unset: string,
  doc: string,
): Setting<T | undefined> {
  return { name, kind, default: undefined, unset, doc };
}
