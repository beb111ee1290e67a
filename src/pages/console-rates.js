// What the node's metrics say, as small plots of the last 15 minutes and a few facts. Counters become rates between two
// looks; a counter that fell has begun anew.

const windowMs = 15 * 60_000;
const width = 180;
const height = 40;

const plots = [
  {
    title: 'Connections',
    read: (m) => m.sum('sobranie_ws_connections_active') + m.sum('sobranie_sse_connections_active'),
  },
  { title: 'Publications/s', counter: 'sobranie_publications_total' },
  { title: 'Deliveries/s', counter: 'sobranie_messages_sent_total' },
  { title: 'Commands/s', counter: 'sobranie_messages_received_total' },
  { title: 'Errors/s', counter: 'sobranie_errors_total' },
  { title: 'Sync delay, ms', delay: 'sobranie_sync_delay_seconds' },
];

const number = new Intl.NumberFormat('en', { maximumFractionDigits: 1 });

/** Samples of the Prometheus text, summed by name. */
export function parseMetrics(text) {
  const sums = new Map();
  for (const line of text.split('\n')) {
    const match = /^([a-z_]+)(?:\{[^}]*\})? (\S+)$/.exec(line);
    if (match !== null) sums.set(match[1], (sums.get(match[1]) ?? 0) + Number(match[2]));
  }
  return { sum: (name) => sums.get(name) ?? 0, has: (name) => sums.has(name) };
}

export class Rates {
  #root;
  #facts;
  #series = plots.map(() => []);
  #last;

  constructor(root, facts) {
    this.#root = root;
    this.#facts = facts;
    for (const { title } of plots) root.append(figure(title));
  }

  /** `at` in milliseconds. */
  take(text, at) {
    const metrics = parseMetrics(text);
    const last = this.#last;
    this.#last = { metrics, at };
    plots.forEach((plot, index) => {
      const value = plot.read === undefined ? rate(plot, metrics, last, at) : plot.read(metrics);
      const series = this.#series[index];
      if (value !== undefined) series.push({ at, value });
      while (series.length > 0 && series[0].at < at - windowMs) series.shift();
      draw(this.#root.children[index], series, at);
    });
    this.#drawFacts(metrics);
  }

  #drawFacts(metrics) {
    const told = (name, unit = '') => (metrics.has(name) ? `${number.format(metrics.sum(name))}${unit}` : '–');
    const facts = [
      ['Sync layer', metrics.sum('sobranie_sync_up') > 0 ? 'up' : 'down', metrics.sum('sobranie_sync_up') === 0],
      [
        'Database',
        !metrics.has('sobranie_database_up') ? '–' : metrics.sum('sobranie_database_up') > 0 ? 'up' : 'down',
      ],
      ['Relay', metrics.sum('sobranie_relay_leader') > 0 ? 'leads' : 'stands by'],
      ['Outbox', told('sobranie_outbox_pending', ' rows')],
      ['Outbox lag', told('sobranie_outbox_lag_seconds', ' s')],
      ['Subscriptions', told('sobranie_subscriptions_active')],
      ['Channels here', told('sobranie_channels_active')],
      ['Lost, told by a gap', told('sobranie_messages_lost_total')],
    ];
    this.#facts.replaceChildren(
      ...facts.map(([name, value, bad]) => {
        const [row, term, text] = ['div', 'dt', 'dd'].map((tag) => document.createElement(tag));
        term.textContent = name;
        text.textContent = value;
        if (bad) text.className = 'bad';
        row.append(term, text);
        return row;
      }),
    );
  }
}

function rate({ counter, delay }, metrics, last, at) {
  if (last === undefined) return undefined;
  const grown = (name) => metrics.sum(name) - last.metrics.sum(name);
  if (delay !== undefined) {
    const count = grown(`${delay}_count`);
    return count > 0 ? (grown(`${delay}_sum`) / count) * 1_000 : undefined;
  }
  return Math.max(0, grown(counter)) / ((at - last.at) / 1_000);
}

function figure(title) {
  const root = document.createElement('figure');
  root.innerHTML = `<svg viewBox="0 0 ${width} ${height}" preserveAspectRatio="none" aria-hidden="true"><path /></svg><figcaption><span></span><b>–</b></figcaption>`;
  root.querySelector('span').textContent = title;
  return root;
}

function draw(root, series, now) {
  if (series.length === 0) return;
  const top = Math.max(...series.map(({ value }) => value), 1e-9);
  const x = (at) => width - ((now - at) / windowMs) * width;
  const y = (value) => height - 1 - (value / top) * (height - 3);
  const points = series.map(({ at, value }) => `${x(at).toFixed(1)},${y(value).toFixed(1)}`);
  root.querySelector('path').setAttribute('d', `M${points.join('L')}`);
  root.querySelector('b').textContent = number.format(series.at(-1).value);
}
