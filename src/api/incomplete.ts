// The nodes that did not answer, or not in full, as a member of an answer: absent from one that is whole.

export function namesOf(incomplete: readonly string[]): { incomplete?: readonly string[] } {
  return incomplete.length === 0 ? {} : { incomplete };
}
