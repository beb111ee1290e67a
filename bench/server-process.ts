// Starts the servers under measurement as real processes and ends them again, whatever way the bench itself ends.
// A server is up once it has printed "listening on http://…"; what it wrote is shown when it does not get that far.
// On the first SIGINT or SIGTERM every process is ended, which fails the run under way and lets it clean up behind
// itself; a second signal leaves at once.
import { fileURLToPath } from 'node:url';

const startSeconds = 30;
const stopSeconds = 5;
const outputKept = 4000;
const live = new Set<Bun.Subprocess>();

export const repositoryRoot = fileURLToPath(new URL('..', import.meta.url));

export interface ServerProcess {
  readonly port: number;
  readonly pid: number;
  stop(): Promise<void>;
}

export class BenchError extends Error {}

let interrupted = false;

function endAll(): void {
  for (const child of live) child.kill('SIGKILL');
}

process.on('exit', endAll);
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.on(signal, () => {
    if (interrupted) process.exit(130);
    interrupted = true;
    endAll();
  });
}

// Every process that the bench starts goes through here: none may outlive it.
export function endWithBench(child: Bun.Subprocess): void {
  live.add(child);
  void child.exited.then(() => live.delete(child));
  if (!interrupted) return;
  child.kill('SIGKILL');
  throw new BenchError('interrupted');
}

export async function startServer(
  command: readonly string[],
  env: Record<string, string> = {},
  cwd: string = repositoryRoot,
): Promise<ServerProcess> {
  const child = Bun.spawn([...command], {
    cwd,
    env: { ...process.env, ...env },
    stdin: 'ignore',
    stdout: 'pipe',
    stderr: 'pipe',
  });
  endWithBench(child);
  const output = { text: '' };
  const listening = Promise.withResolvers<number>();
  void keepOutput(child.stderr, output, listening.resolve);
  void keepOutput(child.stdout, output, listening.resolve);
  const timer = setTimeout(() => listening.resolve(0), startSeconds * 1000);
  const port = await Promise.race([listening.promise, child.exited.then(() => 0)]);
  clearTimeout(timer);
  if (port === 0) {
    child.kill('SIGKILL');
    throw new BenchError(`${command.join(' ')} did not start listening:\n${output.text}`);
  }
  return { port, pid: child.pid, stop: () => stop(child) };
}

async function keepOutput(
  stream: ReadableStream<Uint8Array>,
  output: { text: string },
  onPort: (port: number) => void,
): Promise<void> {
  const decoder = new TextDecoder();
  for await (const chunk of stream) {
    output.text = (output.text + decoder.decode(chunk, { stream: true })).slice(-outputKept);
    const port = /listening on https?:\/\/[^\s:]+:(\d+)/.exec(output.text)?.[1];
    if (port) onPort(Number(port));
  }
}

// Ended without ceremony: draining would only cost the bench time. SIGTERM first, so that a server that owns
// files can put them in order.
async function stop(child: Bun.Subprocess): Promise<void> {
  child.kill('SIGTERM');
  const timer = setTimeout(() => child.kill('SIGKILL'), stopSeconds * 1000);
  await child.exited;
  clearTimeout(timer);
}

export async function freePort(): Promise<number> {
  const probe = Bun.listen({ hostname: '127.0.0.1', port: 0, socket: { data() {} } });
  const { port } = probe;
  probe.stop(true);
  return port;
}
