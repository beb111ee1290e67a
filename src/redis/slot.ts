// Which of a Redis Cluster's 16,384 slots a key or a topic belongs to: CRC-16 (XMODEM) of its hash tag, as Redis defines
// it. The listening connections need it, since a subscription has to be made at the node that serves the slot.

export const slotCount = 16_384;

const remainders = Uint16Array.from({ length: 256 }, (_, byte) => {
  let remainder = byte << 8;
  for (let bit = 0; bit < 8; bit++) remainder = (remainder << 1) ^ ((remainder & 0x8000) === 0 ? 0 : 0x1021);
  return remainder;
});

/** The text between the first `{` and the next `}`, unless that is empty; else all of it. */
function hashTag(key: string): string {
  const open = key.indexOf('{');
  const close = open === -1 ? -1 : key.indexOf('}', open + 1);
  return close <= open + 1 ? key : key.slice(open + 1, close);
}

export function slotOf(key: string): number {
  let remainder = 0;
  for (const byte of new TextEncoder().encode(hashTag(key))) {
    remainder = ((remainder << 8) ^ (remainders[(remainder >> 8) ^ byte] ?? 0)) & 0xffff;
  }
  return remainder % slotCount;
}
