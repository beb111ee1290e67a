// A page of one's own with a bare EventSource, and the few lines of a web server that make Sobranie's event stream
// reachable at the page's own origin, as a reverse proxy does. The browser resumes by itself where it was cut off.
//
//   bun examples/client-eventsource.ts [channels] [port] [url]     then open http://localhost:3001

const [channels = 'posts', port = '3001', url = 'http://localhost:3000'] = process.argv.slice(2);

const page = `<!doctype html>
<meta charset="utf-8">
<title>Live</title>
<link rel="icon" href="data:,">
<h1>${Bun.escapeHTML(channels)}</h1>
<ol id="log"></ol>
<script>
  const url = '/realtime/events?ping=1&channels=${encodeURIComponent(channels)}';
  // Where this page stands in all of its channels: what it missed begins after it.
  let cursor = '';
  const show = (text) => {
    document.querySelector('#log').append(Object.assign(document.createElement('li'), { textContent: text }));
  };
  function open(tries = 0) {
    const source = new EventSource(cursor === '' ? url : url + '&since=' + encodeURIComponent(cursor));
    // Little patience at first: browsers reuse connections, also those of a dead link, and each is tried once.
    let silence = 9 - tries / 4;
    const reopen = () => {
      clearInterval(pulse);
      source.close();
      setTimeout(open, 1000 + Math.random() * 2000, tries + 1);
    };
    // The server sends a ping every 15 seconds: without one for twice as long the link is dead.
    const pulse = setInterval(() => ++silence > 9 && reopen(), 3000);
    const on = (type, text) => source.addEventListener(type, (event) => {
      silence = tries = 0;
      cursor = event.lastEventId;
      if (text) show(text(JSON.parse(event.data)));
    });
    on('ping');
    on('welcome', () => 'connected');
    on('message', ({ channel, data }) => channel + ' ' + JSON.stringify(data));
    on('gap', ({ channel }) => channel + ': some may be missing; load again what it describes');
    source.onerror = () => {
      // A lost connection the browser mends by itself; after an HTTP error, such as a proxy's 502, it gives up.
      if (source.readyState === EventSource.CLOSED) reopen();
    };
  }
  open();
</script>
`;

const server = Bun.serve({
  port: Number(port),
  hostname: '127.0.0.1',
  // The stream may be quiet for longer than any limit on idle requests.
  idleTimeout: 0,
  routes: {
    '/': new Response(page, { headers: { 'content-type': 'text/html; charset=utf-8' } }),
    '/realtime/events': (request) => {
      const { pathname, search } = new URL(request.url);
      // Last-Event-ID is what the browser resumes by.
      const cursor = request.headers.get('last-event-id');
      const headers: Record<string, string> = cursor === null ? {} : { 'last-event-id': cursor };
      return fetch(`${url}${pathname}${search}`, { headers, signal: request.signal }).catch(
        () => new Response('the realtime server is away', { status: 502 }),
      );
    },
  },
});
console.log(`open ${server.url}`);

export {};
