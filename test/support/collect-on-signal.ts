// Preloaded into a server whose memory a test judges: SIGUSR2 has it collect all garbage and say so. The collector by itself
// leaves garbage lying for minutes, 20 MB of it after 100,000 requests, and a heap that was not collected does not tell
// what is held.

let count = 0;

process.on('SIGUSR2', () => {
  Bun.gc(true);
  process.stderr.write(`garbage collected ${++count}\n`);
});
