// How busy all nodes were in the last 15 minutes, as small plots, and a few facts of the node that answers. The nodes
// keep the numbers, so a page that was just opened shows them too.

const width = 180;
const height = 40;
const stepsMax = 180;
/** Of a step that has just ended a node may be missing: the newest are asked for again. */
const stepsAgain = 2;

const plots = [
  { title: 'Connections', of: ({ connections }) => connections },
  { title: 'Publications/s', of: ({ publications }) => publications },
  { title: 'Deliveries/s', of: ({ deliveries }) => deliveries },
  { title: 'Commands/s', of: ({ commands }) => commands },
  { title: 'Errors/s', of: ({ errors }) => errors },
  {
    title: 'Sync delay, ms',
    // Where nothing came there is no delay: the plot goes on from what it was.
    of: ({ delaySeconds, delays }) => (delays > 0 ? (delaySeconds / delays) * 1_000 : undefined),
  },
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
  /** By number of the step, the oldest first. */
  #steps = new Map();

  constructor(root, facts) {
    this.#root = root;
    this.#facts = facts;
    for (const { title } of plots) root.append(figure(title));
  }

  /** The step after which more is wanted. */
  get after() {
    return Math.max(0, ...this.#steps.keys()) - stepsAgain;
  }

  /** As `/console/rates` answers. */
  take({ from, series }) {
    const names = Object.keys(series);
    series.connections.forEach((_, index) => {
      this.#steps.set(from + index, Object.fromEntries(names.map((name) => [name, series[name][index]])));
    });
    const steps = [...this.#steps.keys()].toSorted((one, other) => one - other);
    const last = steps.at(-1);
    for (const step of steps) if (step <= last - stepsMax) this.#steps.delete(step);
    plots.forEach(({ of }, index) => {
      const points = steps
        .map((step) => ({ age: last - step, value: of(this.#steps.get(step) ?? {}) }))
        .filter(({ age, value }) => age < stepsMax && value !== undefined);
      draw(this.#root.children[index], points);
    });
  }

  /** As `/metrics` answers. */
  takeFacts(text) {
    const metrics = parseMetrics(text);
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

function figure(title) {
  const root = document.createElement('figure');
  root.innerHTML = `<svg viewBox="0 0 ${width} ${height}" preserveAspectRatio="none" aria-hidden="true"><path /></svg><figcaption><span></span><b>–</b></figcaption>`;
  root.querySelector('span').textContent = title;
  return root;
}

function draw(root, points) {
  if (points.length === 0) return;
  const top = Math.max(...points.map(({ value }) => value), 1e-9);
  const x = (age) => width - (age / (stepsMax - 1)) * width;
  const y = (value) => height - 1 - (value / top) * (height - 3);
  const line = points.map(({ age, value }) => `${x(age).toFixed(1)},${y(value).toFixed(1)}`);
  // A single point would be no line.
  if (line.length === 1) line.push(line[0]);
  root.querySelector('path').setAttribute('d', `M${line.join('L')}`);
  root.querySelector('b').textContent = number.format(points.at(-1).value);
}
