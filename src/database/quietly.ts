// Whether an append to the log notifies the other nodes, which takes a lock over the whole cluster through each commit.

/** SQL. In a session after it, `realtime.tell` is silent: another bus carries the word. */
export const quietly = `SET realtime.quiet = 'on'`;
