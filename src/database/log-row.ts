// The shape of the log's rows as SQL returns them.

/** A publication as the relay or the log hands it over. */
export interface LogRow {
  /** Order of the whole log; 0 for a publication to an ephemeral channel, which is in no log. */
  readonly seq: number;
  readonly channel: string;
  /** Empty for an ephemeral channel. */
  readonly epoch: string;
  /** 0 for an ephemeral channel. */
  readonly offset: number;
  /** JSON text. */
  readonly data: string;
  /** Unix milliseconds at which it was appended. */
  readonly at: number;
  /** Set when a client published it. */
  readonly user: string | null;
  readonly connection: string | null;
  /** The connection that must not receive it. */
  readonly except: string | null;
  /** The transaction that wrote the change; absent or null when a client published it. */
  readonly xid?: string | null;
}
