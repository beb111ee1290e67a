// The page's calls to the server: rows through the demo API, or publications where there is no database.
// Every call ends: by its answer, by an error that can be read, or by its time limit.

const timeoutMs = 8_000;
const channelWithoutDatabase = 'demo';

const place = 'sobranie-demo-token';

/**
 * The token for a server that asks for one: what was typed into the page, else what its own query carries. Read each
 * time: a fresh one may stand there.
 */
export const token = {
  read: () => sessionStorage.getItem(place) || new URLSearchParams(location.search).get('token'),
  write: (text) => sessionStorage.setItem(place, text),
};

async function call(method, path, body) {
  const given = token.read();
  const headers = {
    ...(body && { 'content-type': 'application/json' }),
    ...(given && { authorization: `Bearer ${given}` }),
  };
  const response = await fetch(path, {
    method,
    headers,
    signal: AbortSignal.timeout(timeoutMs),
    ...(body && { body: JSON.stringify(body) }),
  }).catch((cause) => {
    const late = cause instanceof DOMException && cause.name === 'TimeoutError';
    throw new Error(late ? 'The server did not answer in time.' : 'The server cannot be reached.', { cause });
  });
  const answer = await response.json().catch(() => null);
  if (!response.ok) throw new Error(answer?.error?.message ?? `The server answered ${response.status}.`);
  return answer;
}

export const readInfo = () => call('GET', '/demo/info');

/** Rows of the table `posts`. `insert` answers the key by which the arrival of its message is recognised. */
export const tableStore = {
  channel: 'posts',
  editable: true,
  list: async () => (await call('GET', '/demo/posts')).posts,
  insert: async (fields) => (await call('POST', '/demo/posts', fields)).id,
  update: (id, fields) => call('PATCH', `/demo/posts/${id}`, fields),
  remove: (id) => call('DELETE', `/demo/posts/${id}`),
};

/** Publications of a channel, whose offset stands in for a row's id. */
export const channelStore = {
  channel: channelWithoutDatabase,
  editable: false,
  list: async () => [],
  insert: async (fields) =>
    (await call('POST', '/realtime/publish', { channel: channelWithoutDatabase, data: fields })).offset,
};
