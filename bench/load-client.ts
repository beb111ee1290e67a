// Builds the native load client (load.c) on demand and runs it against one contender. A run whose counts do not come
// out exactly is no measurement: it ends the bench with what was wrong.
import { mkdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { Contender } from './contenders.ts';
import { BenchError, endWithBench, repositoryRoot, type ServerProcess } from './server-process.ts';

const headers = ['load-connection.h', 'load-measure.h', 'load-options.h', 'load-wire.h'];
const sourceDirectory = join(repositoryRoot, 'bench');
const dataBytes = 120;

export interface LoadOptions {
  readonly connections: number;
  readonly window?: number;
  readonly rate?: number;
  // 0: connect, settle, measure memory, leave.
  readonly seconds: number;
  readonly settleSeconds?: number;
  // Connections opened before memory is first looked at, so that what a server pays once is not counted per connection.
  readonly warmConnections?: number;
  // A second server: every other subscriber connects to it, and its CPU is counted.
  readonly peer?: ServerProcess;
  // Publish there instead; no subscriber is on it, and its CPU is counted in the peer's place.
  readonly publishTo?: ServerProcess;
}

export interface LoadResult {
  readonly subscribers: number;
  readonly closed: number;
  readonly refused: number;
  readonly connectSeconds: number;
  readonly rssBeforeKb: number;
  readonly rssAfterKb: number;
  readonly rssEndKb: number;
  readonly kbPerConnection: number;
  readonly published: number;
  readonly expected: number;
  readonly deliveries: number;
  readonly repeated: number;
  readonly missed: number;
  readonly publisherErrors: number;
  readonly seconds: number;
  readonly deliveriesPerSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
  readonly clientCpuSeconds: number;
  readonly serverCpuSeconds: number;
}

export async function runLoad(contender: Contender, server: ServerProcess, options: LoadOptions): Promise<LoadResult> {
  const args = [
    ...['--port', server.port, '--pid', server.pid, '--path', contender.path, '--ready', contender.ready],
    ...['--connections', options.connections, '--warm', options.warmConnections ?? 0],
    ...['--settle', options.settleSeconds ?? 0.3, '--seconds', options.seconds],
    ...['--window', options.window ?? 1, '--rate', options.rate ?? 0],
    ...(contender.transport === 'events' ? ['--events'] : []),
    ...['--hello', contender.hello ?? JSON.stringify({ type: 'subscribe', channel: contender.channel, id: 1 })],
    ...(options.peer ? ['--peer-port', options.peer.port] : []),
    ...(options.publishTo ? ['--publish-port', options.publishTo.port] : []),
    ...['--peer-pid', (options.peer ?? options.publishTo)?.pid ?? 0],
    ...(contender.hello ? ['--publish-hello', contender.hello] : []),
    ...(options.seconds > 0 ? ['--publish-path', contender.publishPath, '--publish', publishFrame(contender)] : []),
  ];
  const child = Bun.spawn([await buildLoadClient(), ...args.map(String)], { stdout: 'pipe', stderr: 'pipe' });
  endWithBench(child);
  const [text, complaint, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  if (code !== 0) throw new BenchError(`${contender.name}: the load client ended with ${code}: ${complaint.trim()}`);
  const result = JSON.parse(text) as LoadResult;
  checkCounts(contender, options, result, complaint.trim());
  return result;
}

function checkCounts(contender: Contender, options: LoadOptions, result: LoadResult, complaint: string): void {
  const whole =
    result.subscribers === options.connections &&
    result.deliveries === result.expected &&
    (options.seconds === 0 || result.published > 0) &&
    result.closed + result.refused + result.repeated + result.missed + result.publisherErrors === 0;
  if (whole) return;
  const { subscribers, published, expected, deliveries, repeated, missed, closed, refused, publisherErrors } = result;
  throw new BenchError(
    `${contender.name}: the counts do not come out: ${published} sent x ${subscribers} subscribers = ${expected}, ` +
      `received ${deliveries}; missed ${missed}, repeated ${repeated}, connections closed ${closed}, ` +
      `refused ${refused} of ${options.connections}, errors to the publisher ${publisherErrors}. ${complaint}`,
  );
}

function publishFrame(contender: Contender): string {
  const bare = JSON.stringify({ mark: '@@00000000', text: '' });
  const data = { mark: '@@00000000', text: 'x'.repeat(dataBytes - bare.length) };
  if (contender.publishFrame) return contender.publishFrame(data);
  return JSON.stringify({ type: 'publish', channel: contender.channel, data });
}

const building = new Map<string, Promise<string>>();

// `program` is the name of a C file of this folder.
export function buildLoadClient(program = 'load'): Promise<string> {
  const built = building.get(program) ?? build(program);
  building.set(program, built);
  return built;
}

async function build(program: string): Promise<string> {
  const binary = join(sourceDirectory, '.build', program);
  const source = `${program}.c`;
  if (!(await isStale(binary, [source, ...headers]))) return binary;
  const compiler = Bun.which('cc') ?? (await installCompiler());
  await mkdir(join(sourceDirectory, '.build'), { recursive: true });
  const output = await run([compiler, '-O2', '-o', binary, join(sourceDirectory, source)]);
  if (output.code !== 0) throw new BenchError(`the load client does not compile:\n${output.text}`);
  return binary;
}

async function isStale(binary: string, sources: readonly string[]): Promise<boolean> {
  const built = await stat(binary).catch(() => undefined);
  if (!built) return true;
  const changed = await Promise.all(sources.map((name) => stat(join(sourceDirectory, name))));
  return changed.some((source) => source.mtimeMs > built.mtimeMs);
}

async function installCompiler(): Promise<string> {
  if (process.getuid?.() === 0 && Bun.which('apt-get')) {
    console.error('no C compiler found: installing gcc');
    await run(['apt-get', 'update']);
    await run(['apt-get', 'install', '-y', 'gcc', 'libc6-dev']);
  }
  const compiler = Bun.which('cc');
  if (!compiler) {
    throw new BenchError('the load client needs a C compiler named cc: apt-get install gcc libc6-dev (Linux only)');
  }
  return compiler;
}

async function run(command: readonly string[]): Promise<{ code: number; text: string }> {
  const child = Bun.spawn([...command], {
    env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
    stdin: 'ignore',
    stdout: 'pipe',
    stderr: 'pipe',
  });
  endWithBench(child);
  const [out, err, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  return { code, text: out + err };
}
