// The port of sources: a broker of another service, and a partition of it that one node of the cluster reads.
//
// What a reader must keep, whatever the broker:
//
//   order      `next` answers messages in the partition's order, none left out that comes after the mark
//   marks      A mark is text in the reader's own words. Opened with it, another node goes on with the message after the
//              batch that it came with. Marks are stored together with what is published, in one transaction.
//   repeats    Messages before the mark never come again. Where the broker brings them, the reader leaves them out.
//   commit     Only what was taken is committed, and nothing rests on that: it is for the broker's own tools, and lets a
//              queue forget.
//   pace       A reader holds a bounded number of messages that nobody has asked for.

/** A message before anybody has looked into it. */
export interface RawMessage {
  readonly topic: string;
  readonly key: string | null;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Uint8Array | string;
  readonly at: number | undefined;
  /** Names it within the partition, for people. */
  readonly position: string;
}

export interface Batch {
  /** May be empty, where all of it was taken before. */
  readonly messages: readonly RawMessage[];
  /** How many more were left out, as they were taken before. */
  readonly repeated: number;
  /** The place after it. */
  readonly mark: string;
}

export interface SourceReader {
  /** Where it begins, if that is not the mark that it was opened with: the first time, or after the broker's loss. */
  readonly begins: string | undefined;
  /** Waits for messages. One call at a time. Rejects when the broker is lost, or the reader closed. */
  next(): Promise<Batch>;
  /** The batch that came last was taken. */
  commit(): Promise<void>;
  /** Asks how many messages wait behind the batch that came last; undefined where that cannot be known. */
  lag(): Promise<number | undefined>;
  /** Idempotent; never rejects. */
  close(): Promise<void>;
}

export interface SourceBroker {
  /** Names of the partitions that there are now. Rejects when the broker does not say. */
  partitions(): Promise<readonly string[]>;
  /** Rejects when the broker is not there, or lacks what is to be read. */
  open(partition: string, mark: string | undefined): Promise<SourceReader>;
  /** Idempotent; never rejects. */
  close(): Promise<void>;
}

/** What a broker may use of the node. */
export interface BrokerParts {
  /** Names the node to the broker. */
  readonly client: string;
  /** Something of a source is lost, or was made anew: an operator should know. */
  readonly warn: (message: string) => void;
}

/** Messages of one batch at most; so many more may wait in a reader. */
export const batchMax = 500;
/** Bytes of one batch, where the broker lets a reader say so. */
export const batchBytesMax = 4 << 20;

/** A broker in which there is but one partition, and nothing of it stays open beside the readers. */
export const onePartition: Pick<SourceBroker, 'partitions' | 'close'> = {
  partitions: () => Promise.resolve(['0']),
  close: () => Promise.resolve(),
};

/** The reader when it has begun. Where it cannot, it is closed, and the failure is passed on. */
export async function begun<Reader extends Pick<SourceReader, 'close'>>(
  reader: Reader,
  begin: (reader: Reader) => Promise<void>,
): Promise<Reader> {
  try {
    await begin(reader);
    return reader;
  } catch (error) {
    await reader.close();
    throw error;
  }
}
