// One datum in a channel, as it travels between the sync layer and the connections of this node.

import { messageFrame } from '../protocol/frames.ts';
import { singleLine } from '../protocol/json-text.ts';

/** Who published: absent for server-side calls and table changes. */
export interface Sender {
  readonly user: string | null;
  readonly connection: string;
}

export interface PublicationFields {
  readonly channel: string;
  /** 0 on ephemeral channels, which number nothing. */
  readonly offset: number;
  /** Empty on ephemeral channels. */
  readonly epoch: string;
  /**
   * JSON text on one line, spliced into frames as it is. Empty for a gap in the log itself: what belongs at this offset
   * could not be carried, and subscribers get a `gap` in its place.
   */
  readonly data: string;
  /** Unix milliseconds at which the server accepted it. */
  readonly at: number;
  readonly from?: Sender | undefined;
  /** The connection that asked not to hear its own publication. */
  readonly except?: string | undefined;
  /** The database's transaction that wrote the change, by which a snapshot tells whether it has seen it. */
  readonly xid?: string | undefined;
}

/** As a table keeps it. */
export interface PublicationRow {
  readonly channel: string;
  readonly offset: number;
  readonly epoch: string;
  /** JSON text, which may have line breaks. */
  readonly data: string;
  readonly at: number;
  /** Of the sender; the connection is null if there was none. */
  readonly user: string | null;
  readonly connection: string | null;
  readonly except: string | null;
  readonly xid?: string | null;
}

/** What a publication costs in memory beside its data and its frame, which repeats the data. */
const overheadBytes = 300;

/**
 * The same object is shared by every subscriber of this node, so that its frame is built once however many read it.
 */
export class Publication implements PublicationFields {
  readonly channel: string;
  readonly offset: number;
  readonly epoch: string;
  readonly data: string;
  readonly at: number;
  readonly from: Sender | undefined;
  readonly except: string | undefined;
  readonly xid: string | undefined;
  #frame: string | undefined;

  constructor(fields: PublicationFields) {
    this.channel = fields.channel;
    this.offset = fields.offset;
    this.epoch = fields.epoch;
    this.data = fields.data;
    this.at = fields.at;
    this.from = fields.from;
    this.except = fields.except;
    this.xid = fields.xid;
  }

  static ofRow({ channel, offset, epoch, data, at, user, connection, except, xid }: PublicationRow): Publication {
    const from = connection === null ? undefined : { user, connection };
    const rest = { from, except: except ?? undefined, xid: xid ?? undefined };
    return new Publication({ channel, offset, epoch, data: singleLine(data), at, ...rest });
  }

  get isGap(): boolean {
    return this.data === '';
  }

  /** Bytes of memory that it takes with its frame, about. The runtime keeps text beyond Latin in two bytes a character. */
  get bytes(): number {
    const { data } = this;
    const isWide = Buffer.byteLength(data) > data.length;
    return data.length * (isWide ? 4 : 2) + overheadBytes;
  }

  /** The `message` frame, which is also the SSE event's data. */
  get frame(): string {
    return (this.#frame ??= messageFrame(this));
  }
}
