// The socket on which the node serves: opened last, watched for the files that it may open, and closed first.

import http from 'node:http';
import type { Elysia } from 'elysia';
import type { Settings } from '../settings/settings.ts';
import { listeningUrl } from './banner.ts';
import type { CloseStack } from './close-stack.ts';
import { listenFault } from './listen-fault.ts';
import { ListeningSocket } from './listening-socket.ts';
import type { Logger } from './logger.ts';
import { OpenFiles, type openFilesReserve } from './open-files.ts';

/**
 * Fits a stream of 50 channels whose names are as long as may be, however its address encodes them, with the largest token
 * and cursor. The runtime by itself takes 16 KiB, and answers more with a status alone.
 */
const headBytesMax = 64 << 10;

/** Where the node serves. */
export interface OpenSocket {
  readonly url: string;
  /** No new connection is taken; those that are open stay. */
  readonly stop: () => void;
}

export function openSocket(
  app: Elysia,
  settings: Settings,
  reserve: ReturnType<typeof openFilesReserve>,
  log: Logger,
  closing: CloseStack,
): OpenSocket {
  const server = listen(app, settings);
  closing.add('HTTP server', async () => {
    await server.stop(true);
  });
  const openFiles =
    reserve && new OpenFiles({ reserve, listening: ListeningSocket.find(server.port ?? 0, settings.port), log });
  openFiles?.start();
  closing.add('open files', () => openFiles?.close());
  return {
    url: listeningUrl(settings, server.port),
    // Resolves only when the last connection is gone, which the shutdown waits for by itself.
    stop: () => {
      openFiles?.close();
      void server.stop();
    },
  };
}

function listen(app: Elysia, settings: Settings): NonNullable<Elysia['server']> {
  // Of the whole process. The types know Node's, which has no such setter.
  (http as { maxHeaderSize: number }).maxHeaderSize = headBytesMax;
  try {
    app.listen(settings.port);
  } catch (error) {
    throw listenFault(error, settings);
  }
  if (app.server === null) throw new Error('the HTTP server did not start');
  return app.server;
}
