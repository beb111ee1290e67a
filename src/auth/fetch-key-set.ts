// One request for a key set, by someone who trusts neither the host's manners nor its size: no redirects, which could
// lead anywhere, no endless bodies, and no waiting past the time limit, be it for the last byte.

import type { JSONWebKeySet } from 'jose';

/** A key with its chain of certificates takes some 10 KiB. */
const bytesMax = 256 << 10;

/** Rejects when the host does not answer with 200 and a set that holds a key. */
export async function fetchKeySet(url: string, timeoutMs: number): Promise<JSONWebKeySet> {
  const response = await fetch(url, {
    headers: { accept: 'application/json, application/jwk-set+json' },
    redirect: 'manual',
    signal: AbortSignal.timeout(timeoutMs),
  });
  if (response.status !== 200) {
    await response.body?.cancel();
    throw new Error(`the key set's host answered ${response.status}`);
  }
  const set: unknown = JSON.parse(await boundedText(response));
  if (!isKeySet(set)) throw new Error("the key set's host answered with something else than a set of keys");
  return set;
}

async function boundedText(response: Response): Promise<string> {
  const decoder = new TextDecoder();
  let text = '';
  let bytes = 0;
  for await (const chunk of response.body ?? []) {
    bytes += chunk.byteLength;
    // Leaving the loop cancels the request.
    if (bytes > bytesMax) throw new Error(`the key set is larger than ${bytesMax} bytes`);
    text += decoder.decode(chunk, { stream: true });
  }
  return text + decoder.decode();
}

/** An empty set is taken for a fault of its host: to believe it would shut everyone out. */
function isKeySet(value: unknown): value is JSONWebKeySet {
  if (typeof value !== 'object' || value === null || !('keys' in value)) return false;
  const { keys } = value;
  return Array.isArray(keys) && keys.length > 0 && keys.every((key) => typeof key === 'object' && key !== null);
}
