// Writes deploy/grafana/sobranie.json: `bun scripts/dashboards.ts`. One dashboard, from what clients notice down to the
// process. Each panel is a title, a sentence on how to read it, and its queries.

import { resolve } from 'node:path';
import {
  DashboardBuilder,
  DatasourceVariableBuilder,
  QueryVariableBuilder,
  RowBuilder,
} from '@grafana/grafana-foundation-sdk/dashboard';
import { DataqueryBuilder } from '@grafana/grafana-foundation-sdk/prometheus';
import { PanelBuilder } from '@grafana/grafana-foundation-sdk/timeseries';

export const dashboardFile = resolve(import.meta.dir, '../deploy/grafana/sobranie.json');

export interface Query {
  readonly expr: string;
  /** Names its series. */
  readonly legend: string;
}

export interface Panel {
  readonly title: string;
  readonly about: string;
  readonly unit: string;
  readonly queries: readonly Query[];
}

/** `$instance` is what the viewer chose. */
const at = 'instance=~"$instance"';
const rate = (metric: string, labels = ''): string => `rate(${metric}{${at}${labels}}[$__rate_interval])`;
const quantile = (share: number, histogram: string): string =>
  `histogram_quantile(${share}, sum by (le) (${rate(`${histogram}_bucket`)}))`;

const panel = (
  title: string,
  about: string,
  unit: string,
  ...queries: readonly (readonly [string, string])[]
): Panel => ({
  title,
  about,
  unit,
  queries: queries.map(([expr, legend]) => ({ expr, legend })),
});

export const rows: Readonly<Record<string, readonly Panel[]>> = {
  'What clients notice': [
    panel(
      'Delivery time',
      'Seconds from accepted to written, once per publication.',
      's',
      [quantile(0.5, 'sobranie_message_delivery_duration_seconds'), 'half are faster'],
      [quantile(0.99, 'sobranie_message_delivery_duration_seconds'), '99 of 100 are faster'],
    ),
    panel('Deliveries', 'One publication to 1,000 connections counts 1,000.', 'ops', [
      `sum by (channel) (${rate('sobranie_messages_sent_total')})`,
      '{{channel}}',
    ]),
    panel('Gaps', 'Subscribers that may have missed something, and were told. Should be none.', 'short', [
      `sum by (reason) (increase(sobranie_messages_lost_total{${at}}[$__rate_interval]))`,
      '{{reason}}',
    ]),
    panel('Errors', 'Errors that clients got, by code.', 'ops', [
      `sum by (code) (${rate('sobranie_errors_total')})`,
      '{{code}}',
    ]),
  ],
  Connections: [
    panel(
      'Open connections',
      'Of each node, by transport.',
      'short',
      [`sobranie_ws_connections_active{${at}}`, 'WebSocket {{server_id}}'],
      [`sobranie_sse_connections_active{${at}}`, 'event stream {{server_id}}'],
    ),
    panel('Room', 'Connections of all that the node accepts.', 'percentunit', [
      `(sum by (instance) (sobranie_ws_connections_active{${at}}) + sum by (instance) (sobranie_sse_connections_active{${at}}))` +
        ` / sum by (instance) (sobranie_connections_max{${at}})`,
      '{{instance}}',
    ]),
    panel('Arrivals', 'Attempts to connect. A deploy is a hill; a flood of refusals is a client at fault.', 'ops', [
      `sum by (transport, outcome) (${rate('sobranie_connections_total')})`,
      '{{transport}} {{outcome}}',
    ]),
    panel('Departures', 'Ended connections by close code: 1000 and 1001 are normal, 1006 is lost or too slow.', 'ops', [
      `sum by (transport, code) (${rate('sobranie_disconnects_total')})`,
      '{{transport}} {{code}}',
    ]),
    panel(
      'Subscriptions and channels',
      'Subscriptions, channels with a subscriber, and members that are present.',
      'short',
      [`sum(sobranie_subscriptions_active{${at}})`, 'subscriptions'],
      [`sum(sobranie_channels_active{${at}})`, 'channels'],
      [`sum(sobranie_presence_members{${at}})`, 'members'],
    ),
    panel('Recoveries', 'Clients that came back with a position: with all they missed, or with a gap.', 'ops', [
      `sum by (outcome) (${rate('sobranie_recoveries_total')})`,
      '{{outcome}}',
    ]),
    panel('Limits', 'What limits turned away.', 'ops', [
      `sum by (kind) (${rate('sobranie_rate_limited_total')})`,
      '{{kind}}',
    ]),
  ],
  Publications: [
    panel('Publications', 'Accepted, by where they came from.', 'ops', [
      `sum by (source) (${rate('sobranie_publications_total')})`,
      '{{source}}',
    ]),
    panel('Commands', 'What clients ask for.', 'ops', [
      `sum by (type) (${rate('sobranie_messages_received_total')})`,
      '{{type}}',
    ]),
    panel(
      'Outbox',
      'Changes that wait for the relay, and how long the oldest has waited.',
      'short',
      [`sobranie_outbox_pending{${at}}`, 'changes'],
      [`sobranie_outbox_lag_seconds{${at}}`, 'seconds'],
    ),
    panel('Relay', 'The node that relays. Exactly one.', 'short', [`sobranie_relay_leader{${at}}`, '{{instance}}']),
    panel('Capture faults', 'Changes that could not be captured, of each table.', 'short', [
      `max by (table) (sobranie_capture_faults_total{${at}}) or vector(0)`,
      '{{table}}',
    ]),
  ],
  'Sync layer and database': [
    panel(
      'Reachable',
      '1 while the node reaches them, and while all of its checks pass.',
      'short',
      [`sobranie_sync_up{${at}}`, '{{adapter}} {{instance}}'],
      [`sobranie_database_up{${at}}`, 'database {{instance}}'],
      [`sobranie_ready{${at}}`, 'ready {{instance}}'],
    ),
    panel('Through the sync layer', 'Publications in and out.', 'ops', [
      `sum by (direction) (${rate('sobranie_sync_messages_total')})`,
      '{{direction}}',
    ]),
    panel('Delay', 'Seconds from accepted on any node to arrived: 99 of 100 are faster.', 's', [
      quantile(0.99, 'sobranie_sync_delay_seconds'),
      'delay',
    ]),
    panel(
      'Faults',
      'Failures of the sync layer, and connections that were regained.',
      'ops',
      [`sum by (adapter) (${rate('sobranie_sync_errors_total')})`, 'failures {{adapter}}'],
      [`sum by (adapter) (${rate('sobranie_sync_reconnects_total')})`, 'reconnects {{adapter}}'],
    ),
  ],
  Processes: [
    panel('Processor', 'Of one core.', 'percentunit', [rate('process_cpu_seconds_total'), '{{server_id}}']),
    panel(
      'Memory',
      'Resident, and what of it is the heap.',
      'bytes',
      [`process_resident_memory_bytes{${at}}`, 'resident {{server_id}}'],
      [`sobranie_heap_used_bytes{${at}}`, 'heap {{server_id}}'],
    ),
    panel('Event loop', 'How late timers are: everyone on the node waits as long.', 's', [
      `sobranie_event_loop_lag_seconds{${at},statistic=~"p99|max"}`,
      '{{statistic}} {{server_id}}',
    ]),
    panel('Versions', 'Of the nodes; two while a deploy is under way.', 'short', [
      `count by (version) (sobranie_build_info{${at}})`,
      '{{version}}',
    ]),
  ],
};

/** The JSON that Grafana imports. */
export function dashboardText(): string {
  const source = { type: 'prometheus', uid: '${source}' };
  const dashboard = new DashboardBuilder('Sobranie')
    .uid('sobranie')
    .tags(['sobranie'])
    .refresh('10s')
    .time({ from: 'now-1h', to: 'now' })
    .timezone('browser')
    .withVariable(new DatasourceVariableBuilder('source').label('Prometheus').type('prometheus'))
    .withVariable(
      new QueryVariableBuilder('instance')
        .label('Node')
        .query('label_values(sobranie_build_info, instance)')
        .datasource(source)
        .multi(true)
        .includeAll(true),
    );
  for (const [title, panels] of Object.entries(rows)) {
    dashboard.withRow(new RowBuilder(title));
    for (const { title: name, about, unit, queries } of panels) {
      const graph = new PanelBuilder()
        .title(name)
        .description(about)
        .unit(unit)
        .min(0)
        .datasource(source)
        .height(8)
        .span(8);
      for (const { expr, legend } of queries) {
        graph.withTarget(new DataqueryBuilder().expr(expr).legendFormat(legend).datasource(source));
      }
      dashboard.withPanel(graph);
    }
  }
  return `${JSON.stringify(dashboard.build(), undefined, 2)}\n`;
}

if (import.meta.main) {
  await Bun.write(dashboardFile, dashboardText());
  console.log(dashboardFile);
}
