// The check that takes its time: what becomes of connections that nobody uses, beside a stream that is busy. Heartbeats
// are all that passes: every 15 seconds on a stream, every 24 on a WebSocket.

import { fail, ok, skip, warn, type Finding } from './finding.ts';
import type { StreamWatch, Visit } from './visit.ts';

const busyEveryMs = 500;

export async function checkSilence(visit: Visit, quietVisit: Visit, seconds: number): Promise<Finding[]> {
  if (seconds <= 0) return [skip('idle', 'not tried: --idle 0')];
  const quiet = await quietVisit.stream().catch(() => undefined);
  const busy = await visit.stream().catch(() => undefined);
  const socket = await quietVisit.socket();
  const startedAt = performance.now();
  let canPublish = true;
  while (performance.now() - startedAt < seconds * 1_000) {
    if (canPublish) canPublish = await visit.publish('busy').catch(() => false);
    await Bun.sleep(busyEveryMs);
    if ([quiet?.endedAt, busy?.endedAt, socket.endedAt].every((at) => at !== undefined)) break;
  }
  const lasted = {
    quiet: lifeOf(quiet),
    busy: lifeOf(busy),
    socket: socket.endedAt === undefined ? undefined : socket.endedAt - socket.openedAt,
  };
  const drained = [quiet, busy, socket].some((watch) => watch?.events.all.some(({ type }) => type === 'drain'));
  for (const watch of [quiet, busy, socket]) watch?.close();
  if (drained) return [skip('idle', 'a node drained meanwhile: try again')];
  return [streamFinding(lasted, canPublish, seconds), socketFinding(lasted.socket, seconds)];
}

function lifeOf(watch: StreamWatch | undefined): number | undefined {
  return watch?.endedAt === undefined ? undefined : watch.endedAt - watch.openedAt;
}

function streamFinding(
  { quiet, busy }: { quiet: number | undefined; busy: number | undefined },
  wasBusy: boolean,
  seconds: number,
): Finding {
  if (quiet === undefined && busy === undefined) return ok('idle stream', `still open after ${seconds} s of silence`);
  if (busy !== undefined && wasBusy) {
    return fail('idle stream', `every event stream ends after ${inSeconds(busy)}, busy or not`, 'cut');
  }
  const cut = inSeconds(quiet ?? busy ?? 0);
  if (wasBusy) return fail('idle stream', `a quiet event stream is cut after ${cut}`, 'idle');
  return fail('idle stream', `an event stream ends after ${cut}`, 'cut');
}

function socketFinding(lasted: number | undefined, seconds: number): Finding {
  if (lasted === undefined) return ok('idle websocket', `still open after ${seconds} s of silence`);
  // It never opened, which another check says.
  if (lasted < 200) return warn('idle websocket', 'it did not open');
  return fail('idle websocket', `a quiet WebSocket is cut after ${inSeconds(lasted)}`, 'idle');
}

function inSeconds(milliseconds: number): string {
  return `${(milliseconds / 1_000).toFixed(milliseconds < 10_000 ? 1 : 0)} s`;
}
