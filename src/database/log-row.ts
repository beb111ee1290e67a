// The shape in which the log's rows cross from SQL into this process, whoever asked for them.

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
  /** Unix milliseconds at which the log took it in. */
  readonly at: number;
  /** Set when a client published it. */
  readonly user: string | null;
  readonly connection: string | null;
  /** The connection that shall not hear it. */
  readonly except: string | null;
}
