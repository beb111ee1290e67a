// A real Prometheus and Alertmanager of Debian's, which scrape nodes, evaluate the rules that ship, and notify this
// process of alerts. The rules' waits are left out and what they look back on is shortened: what these are worth is
// tested by promtool.

import { readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { endAfterTests, temporaryFolder } from './janitor.ts';
import { freePort } from './postgres.ts';
import { until } from './tcp-client.ts';

export const rulesFile = resolve(import.meta.dir, '../../deploy/prometheus/rules.yml');

export interface Monitoring {
  /** The series that a query answers now, with their values. */
  query(
    expr: string,
  ): Promise<readonly { readonly labels: Readonly<Record<string, string>>; readonly value: number }[]>;
  /** Of alerts of which Alertmanager has notified us, in order, such as `SobranieSyncDown firing`. */
  readonly notified: readonly string[];
  close(): Promise<void>;
}

export async function startMonitoring(targets: readonly string[]): Promise<Monitoring> {
  const folder = temporaryFolder('prometheus');
  const file = (name: string, text: string): string => {
    writeFileSync(join(folder, name), text);
    return join(folder, name);
  };
  const notified: string[] = [];
  const hook = Bun.serve({
    port: 0,
    hostname: '127.0.0.1',
    async fetch(request) {
      const { alerts } = (await request.json()) as { alerts: { status: string; labels: { alertname: string } }[] };
      for (const { status, labels } of alerts) notified.push(`${labels.alertname} ${status}`);
      return new Response();
    },
  });
  const [alertmanagerPort, port] = [await freePort(), await freePort()];
  const alertmanagerConfig = file(
    'alertmanager.yml',
    `route: { receiver: hook, group_by: ['...'], group_wait: 0s, group_interval: 1s }
receivers:
  - { name: hook, webhook_configs: [{ url: 'http://127.0.0.1:${hook.port}/', send_resolved: true }] }
`,
  );
  const impatient = readFileSync(rulesFile, 'utf8')
    .replaceAll(/^ +for: .*\n/gm, '')
    .replaceAll(/\[\d+m\]/g, '[10s]')
    .replaceAll(/offset \d+m/g, 'offset 10s');
  const rules = file('rules.yml', impatient);
  const config = file(
    'prometheus.yml',
    `global: { scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 500ms }
rule_files: ['${rules}']
alerting:
  alertmanagers: [{ static_configs: [{ targets: ['127.0.0.1:${alertmanagerPort}'] }] }]
scrape_configs:
  - { job_name: sobranie, static_configs: [{ targets: ${JSON.stringify(targets)} }] }
`,
  );
  const start = (...command: string[]): Bun.Subprocess => {
    const log = Bun.file(join(folder, `${command[0]}.log`));
    const child = Bun.spawn(command, { stdin: 'ignore', stdout: 'ignore', stderr: log, cwd: folder });
    endAfterTests(child);
    return child;
  };
  const children = [
    start(
      'prometheus-alertmanager',
      ...[`--config.file=${alertmanagerConfig}`, `--storage.path=${folder}/alerts`, '--cluster.listen-address='],
      `--web.listen-address=127.0.0.1:${alertmanagerPort}`,
    ),
    start(
      'prometheus',
      ...[`--config.file=${config}`, `--storage.tsdb.path=${folder}/data`, `--web.listen-address=127.0.0.1:${port}`],
    ),
  ];
  const api = `http://127.0.0.1:${port}`;
  const answers = async (url: string): Promise<boolean> => (await fetch(url).catch(() => undefined))?.ok === true;
  await until(() => answers(`${api}/-/ready`), 'Prometheus is ready', 20_000);
  await until(() => answers(`http://127.0.0.1:${alertmanagerPort}/-/ready`), 'Alertmanager is ready', 20_000);
  return {
    notified,
    async query(expr) {
      const response = await fetch(`${api}/api/v1/query?query=${encodeURIComponent(expr)}`);
      const body = (await response.json()) as {
        error?: string;
        data: { result: { metric: Record<string, string>; value: [number, string] }[] };
      };
      if (!response.ok) throw new Error(`${expr}: ${body.error}`);
      return body.data.result.map(({ metric, value }) => ({ labels: metric, value: Number(value[1]) }));
    },
    async close() {
      for (const child of children) child.kill();
      await Promise.all(children.map((child) => child.exited));
      await hook.stop(true);
    },
  };
}
