// The console's calls. Each carries the key, ends in time, and rejects with a sentence that can be shown. The key stays
// in this tab: it is forgotten with it.

const timeoutMs = 10_000;
const place = 'sobranie-admin-key';

export const key = {
  get: () => sessionStorage.getItem(place) ?? '',
  set: (value) => sessionStorage.setItem(place, value),
  forget: () => sessionStorage.removeItem(place),
};

/** `unauthorized` is set on the error of a wrong key. */
export async function call(method, path, body) {
  const given = key.get();
  const response = await fetch(path, {
    method,
    headers: {
      ...(body !== undefined && { 'content-type': 'application/json' }),
      ...(given !== '' && { authorization: `Bearer ${given}` }),
    },
    signal: AbortSignal.timeout(timeoutMs),
    ...(body !== undefined && { body }),
  }).catch((cause) => {
    throw new Error('The server does not answer.', { cause });
  });
  const text = await response.text();
  if (response.ok) return response.headers.get('content-type')?.includes('json') ? JSON.parse(text) : text;
  let message = `The server answered ${response.status}.`;
  try {
    message = JSON.parse(text).error.message;
  } catch {
    // A proxy's own page says nothing that helps.
  }
  throw Object.assign(new Error(message), { unauthorized: response.status === 401 });
}
