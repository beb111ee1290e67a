// Renders the Helm chart of deploy/helm without a cluster. `bun scripts/chart.ts` writes what its default values make to
// deploy/kubernetes/sobranie.yaml, for those who use no Helm. Helm itself comes as a library inside a package of PyPI,
// which is kept in the user's cache.

import { existsSync, mkdirSync, renameSync, rmSync } from 'node:fs';
import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import { runToEnd } from './run-to-end.ts';

const helmPackage = 'helm-python-sdk==0.2.2';
const chart = resolve(import.meta.dir, '../deploy/helm/sobranie');
const target = resolve(import.meta.dir, '../deploy/kubernetes/sobranie.yaml');

async function installedHelm(): Promise<string> {
  const folder = join(process.env['XDG_CACHE_HOME'] || join(homedir(), '.cache'), 'sobranie', helmPackage);
  if (existsSync(folder)) return folder;
  const partial = `${folder}.partial-${process.pid}`;
  mkdirSync(partial, { recursive: true });
  try {
    const flags = ['--quiet', '--root-user-action=ignore', '--disable-pip-version-check', '--no-deps'];
    const command = ['python3', '-m', 'pip', 'install', ...flags, '--target', partial, helmPackage];
    if ((await runToEnd(command, { limitSeconds: 300 })) !== 0) throw new Error(`${helmPackage} cannot be installed`);
    renameSync(partial, folder);
    return folder;
  } finally {
    rmSync(partial, { recursive: true, force: true });
  }
}

const program = `
import json, sys
from helm_python.chart import Chart, lint
path, values = sys.argv[1], json.loads(sys.argv[2])
report = lint(path, values, strict=True)
chart = Chart.load(path)
chart.validate_schema(values)
rendered = chart.render(values, name="sobranie", namespace="default")
print(json.dumps({"faults": [m for m in report["messages"] if m["severity"] >= 2], "rendered": rendered}))
`;

export interface RenderedChart {
  /** What \`helm lint --strict\` says. */
  readonly faults: readonly unknown[];
  /** Manifests by template, in one text. */
  readonly manifests: string;
}

/** Rejects when the values do not fit the chart's schema. */
export async function renderChart(values: object = {}): Promise<RenderedChart> {
  const folder = await installedHelm();
  const helm = Bun.spawn(['python3', '-c', program, chart, JSON.stringify(values)], {
    env: { ...process.env, PYTHONPATH: folder },
    stdout: 'pipe',
    stderr: 'pipe',
  });
  const [out, errors] = await Promise.all([helm.stdout.text(), helm.stderr.text()]);
  if ((await helm.exited) !== 0) throw new Error(errors.trim().split('\n').at(-1));
  const { faults, rendered } = JSON.parse(out) as { faults: unknown[]; rendered: Record<string, string> };
  const texts = Object.entries(rendered)
    .filter(([path, text]) => path.endsWith('.yaml') && text.trim() !== '')
    .toSorted(([one], [other]) => one.localeCompare(other, 'en'))
    .map(([, text]) => text.trim().replace(/^---\n/, ''));
  return { faults, manifests: `${texts.join('\n---\n').replaceAll(/\n\n+/g, '\n')}\n` };
}

/** The file's own first lines. */
export const manifestHead = `# What deploy/helm/sobranie makes of its default values; written by \`bun scripts/chart.ts\`. It needs a Secret first:
#
#   kubectl create secret generic sobranie --from-literal=DATABASE_URL=postgres://… --from-literal=JWT_SECRET=…
---
`;

if (import.meta.main) {
  const { faults, manifests } = await renderChart();
  if (faults.length > 0) throw new Error(JSON.stringify(faults));
  await Bun.write(target, manifestHead + manifests);
  console.log(target);
}
