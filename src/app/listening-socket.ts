// The socket that the server listens on, as the operating system knows it: to stop listening for a while and go on later.
// The runtime can only stop for good. A second server in the same process would be no way either, since the topics of one
// do not reach the connections of the other.
//
// `pause` takes the socket out of the runtime's event loop and ends its listening. So clients are refused at once, or get
// to other workers on the port. `resume` undoes both. Only Linux; elsewhere there is no such object.

import { dlopen, FFIType, ptr } from 'bun:ffi';
import { readdirSync, readFileSync } from 'node:fs';

const epollAdd = 1;
const epollDelete = 2;
const shutdownRead = 0;
const socketLevel = 1;
const acceptsConnections = 30;
/** Room for an address of any family; where its port is, in the network's byte order, in those of IPv4 and IPv6. */
const addressBytes = 128;
const portAt = 2;
/** As many wait in the kernel as with the runtime's own call. */
const backlog = 512;

/** Where the event loop has the socket, and what it is told of it. */
interface Watch {
  readonly loop: number;
  readonly event: Uint8Array;
}

export class ListeningSocket {
  readonly #socket: number;
  readonly #watch: Watch;
  readonly #system: System;
  /** A port that the kernel chose would be another one afterwards: then the socket only rests. */
  readonly #keepsPort: boolean;

  private constructor(socket: number, watch: Watch, system: System, keepsPort: boolean) {
    this.#socket = socket;
    this.#watch = watch;
    this.#system = system;
    this.#keepsPort = keepsPort;
  }

  /** That of this process on the port; `chosen` is the port of the settings. Undefined where it cannot be found. */
  static find(port: number, chosen: number): ListeningSocket | undefined {
    try {
      const system = openSystem();
      const socket = listeningFile(system, port);
      const watch = socket === undefined ? undefined : watchOf(socket);
      if (socket === undefined || watch === undefined) return undefined;
      return new ListeningSocket(socket, watch, system, chosen !== 0);
    } catch {
      // Not Linux, or a C library of another name.
      return undefined;
    }
  }

  pause(): void {
    this.#system.epoll_ctl(this.#watch.loop, epollDelete, this.#socket, null);
    if (this.#keepsPort) this.#system.shutdown(this.#socket, shutdownRead);
  }

  resume(): void {
    if (this.#keepsPort) this.#system.listen(this.#socket, backlog);
    this.#system.epoll_ctl(this.#watch.loop, epollAdd, this.#socket, ptr(this.#watch.event));
  }
}

type System = ReturnType<typeof openSystem>;

function openSystem() {
  return dlopen('libc.so.6', {
    epoll_ctl: { args: [FFIType.i32, FFIType.i32, FFIType.i32, FFIType.ptr], returns: FFIType.i32 },
    shutdown: { args: [FFIType.i32, FFIType.i32], returns: FFIType.i32 },
    listen: { args: [FFIType.i32, FFIType.i32], returns: FFIType.i32 },
    getsockopt: { args: [FFIType.i32, FFIType.i32, FFIType.i32, FFIType.ptr, FFIType.ptr], returns: FFIType.i32 },
    getsockname: { args: [FFIType.i32, FFIType.ptr, FFIType.ptr], returns: FFIType.i32 },
  }).symbols;
}

/** Asked of each open file, and not of the machine's table of connections, which a busy host has in tens of thousands. */
function listeningFile(system: System, port: number): number | undefined {
  const option = new Int32Array(1);
  const address = new DataView(new ArrayBuffer(addressBytes));
  const size = new Uint32Array(1);
  return files('fd').find((file) => {
    size[0] = option.byteLength;
    if (system.getsockopt(file, socketLevel, acceptsConnections, ptr(option), ptr(size)) !== 0) return false;
    if (option[0] !== 1) return false;
    size[0] = addressBytes;
    return system.getsockname(file, ptr(address), ptr(size)) === 0 && address.getUint16(portAt) === port;
  });
}

function watchOf(socket: number): Watch | undefined {
  const line = new RegExp(`^tfd:\\s+${socket} events:\\s+([0-9a-f]+) data:\\s+([0-9a-f]+)`, 'm');
  for (const file of files('fdinfo')) {
    const [, events, data] = line.exec(textOf(file)) ?? [];
    if (events === undefined || data === undefined) continue;
    return { loop: file, event: eventOf(Number.parseInt(events, 16), BigInt(`0x${data}`)) };
  }
  return undefined;
}

/** The C structure `epoll_event`, which has a gap on all processors but x86. */
function eventOf(events: number, data: bigint): Uint8Array {
  const dataAt = process.arch === 'x64' ? 4 : 8;
  const event = new Uint8Array(dataAt + 8);
  const view = new DataView(event.buffer);
  view.setUint32(0, events, true);
  view.setBigUint64(dataAt, data, true);
  return event;
}

function files(folder: 'fd' | 'fdinfo'): number[] {
  return readdirSync(`/proc/self/${folder}`).map(Number);
}

function textOf(file: number): string {
  try {
    return readFileSync(`/proc/self/fdinfo/${file}`, 'utf8');
  } catch {
    // Closed meanwhile: the walk itself opens one.
    return '';
  }
}
