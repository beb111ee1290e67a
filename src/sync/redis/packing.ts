// The data of publications on their way through Redis and in its memory: compressed once, by the node that publishes, where
// they are large enough. Packed data begin with a mark that no JSON text begins with, so every node reads both forms,
// whatever its own setting.
//
// The bytes are written as base64: the driver and the scripts carry text.

const mark = '~';
/** Higher levels save two bytes of a hundred, and cost a third more. */
const options = { level: 1 };

/** `fromBytes`: what is shorter stays as it is, and so does what would not shrink; 0 leaves all as they are. */
export function pack(data: string, fromBytes: number): string {
  if (fromBytes === 0 || data.length < fromBytes) return data;
  const packed = mark + Bun.zstdCompressSync(data, options).toString('base64');
  return packed.length < data.length ? packed : data;
}

/** Throws when it is no data of ours. */
export function unpack(text: string): string {
  if (!text.startsWith(mark)) return text;
  const bytes = Bun.zstdDecompressSync(Buffer.from(text.slice(mark.length), 'base64'));
  const data = bytes.toString();
  // Detached, its memory is free at once. The collector would leave it for seconds, and a crowd that reads large
  // publications takes hundreds of megabytes in that time.
  if (bytes.buffer instanceof ArrayBuffer) bytes.buffer.transfer(0);
  return data;
}
