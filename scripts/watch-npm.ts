// Notices that `npx` was told to stop. It passes a signal on to the shell that it started, and that shell dies of it
// without telling the program it runs: a server would go on, unseen, with its port taken.
// Reads /proc, so it watches on Linux alone; elsewhere nothing is watched.

import { readFileSync } from 'node:fs';

const levelsMax = 5;
const pollMs = 500;

/** Calls `gone` once when a process between here and npm is gone. The answer ends the watch. */
export function watchNpm(gone: () => void): () => void {
  const chain = chainToNpm();
  if (chain.length === 0) return () => undefined;
  const timer = setInterval(() => {
    if (chain.every((pid, index) => parentOf(pid) === chain[index + 1] || index === chain.length - 1)) return;
    clearInterval(timer);
    gone();
  }, pollMs);
  return () => {
    clearInterval(timer);
  };
}

/** This process, its parent and so on up to npm; empty when npm did not start it. */
function chainToNpm(): number[] {
  const chain = [process.pid];
  for (let level = 0; level < levelsMax; level++) {
    const parent = parentOf(chain[level] ?? 0);
    if (parent === undefined || parent <= 1) return [];
    chain.push(parent);
    if (/^(\S*node\0)?(\S*\/)?np[mx](-cli\.js)?[\0 ]/.test(readProc(parent, 'cmdline') ?? '')) return chain;
  }
  return [];
}

function parentOf(pid: number): number | undefined {
  const stat = readProc(pid, 'stat');
  // The second field is the program's name in brackets, which may hold blanks and brackets of its own.
  const parent = stat?.slice(stat.lastIndexOf(')') + 2).split(' ')[1];
  return parent === undefined ? undefined : Number(parent);
}

function readProc(pid: number, file: string): string | undefined {
  try {
    return readFileSync(`/proc/${pid}/${file}`, 'utf8');
  } catch {
    // The process is gone, or this is no Linux.
    return undefined;
  }
}
