// The client's package as one script for the server's own pages. In a checkout it is made at the first request, so that
// nobody needs a build step. Where the server was built, it was made then.

import { shippedPath } from '../shipped/files.ts';

/** Where a build leaves it. */
export const clientScriptFile = 'src/pages/sobranie.js';

let made: Promise<string> | undefined;

/** Rejects where neither the script nor the client's source is. */
export function clientScript(): Promise<string> {
  made ??= readOrMake().catch((error: unknown) => {
    made = undefined;
    throw error;
  });
  return made;
}

async function readOrMake(): Promise<string> {
  const shipped = Bun.file(shippedPath(clientScriptFile));
  return (await shipped.exists()) ? shipped.text() : makeClientScript(shippedPath('packages/client/src/index.ts'));
}

export async function makeClientScript(entry: string): Promise<string> {
  const { outputs, success, logs } = await Bun.build({
    entrypoints: [entry],
    target: 'browser',
    format: 'esm',
    minify: true,
  });
  const [script] = outputs;
  if (!success || script === undefined) throw new Error(`the client's script: ${logs.map(String).join('\n')}`);
  return script.text();
}
