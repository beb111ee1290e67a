// Wall time with fractions of a millisecond, the same in every process of this machine. It stands alone because the
// processes that are measured import it, and must not take on the signal handling of the bench with it.
export const wallClockMs = (): number => performance.timeOrigin + performance.now();
