// What deploy/ ships for containers, Kubernetes and systemd: it fits the schema of those who read it, and it fits the
// server: paths, ports, commands and times.

import { expect, test } from 'bun:test';
import { chmodSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Deployment } from 'kubernetes-models/apps/v1/Deployment';
import { HorizontalPodAutoscaler } from 'kubernetes-models/autoscaling/v2/HorizontalPodAutoscaler';
import { Ingress } from 'kubernetes-models/networking.k8s.io/v1/Ingress';
import { PodDisruptionBudget } from 'kubernetes-models/policy/v1/PodDisruptionBudget';
import { ConfigMap, Service } from 'kubernetes-models/v1';
import { manifestHead, renderChart } from '../../scripts/chart.ts';
import { createProgram } from '../../src/cli/program.ts';
import { allSettings } from '../../src/settings/table.ts';
import { engines } from '../../src/app/engines.ts';
import { WebSocketClient } from '../support/clients.ts';
import { buildImage } from '../support/image.ts';
import { temporaryFolder } from '../support/janitor.ts';
import { patient } from '../support/patience.ts';
import { createDatabase, freePort } from '../support/postgres.ts';
import { listening } from '../support/process.ts';

patient();

const root = join(import.meta.dir, '../..');
const read = (path: string): string => readFileSync(join(root, path), 'utf8');
const settingNames = new Set(allSettings(engines).map(({ name }) => name));

const kinds = { Deployment, HorizontalPodAutoscaler, Ingress, PodDisruptionBudget, ConfigMap, Service };

interface Manifest {
  readonly kind: keyof typeof kinds;
  readonly metadata: { readonly name: string };
}

/** All of them, each valid by the schema of its kind. */
function manifestsOf(text: string): Manifest[] {
  const manifests = (Bun.YAML.parse(text) as (Manifest | null)[]).filter((each) => each !== null);
  for (const manifest of manifests) {
    expect(Object.keys(kinds)).toContain(manifest.kind);
    const Kind = kinds[manifest.kind] as new (data: object) => { validate(): void };
    new Kind(manifest).validate();
  }
  return manifests;
}

test('the manifests fit the schemas of Kubernetes, and the server', () => {
  const manifests = manifestsOf(read('deploy/kubernetes/sobranie.yaml'));
  expect(manifests.map(({ kind }) => kind).toSorted()).toEqual([
    'Deployment',
    'HorizontalPodAutoscaler',
    'PodDisruptionBudget',
    'Service',
  ]);
  const deployment = new Deployment(manifests.find(({ kind }) => kind === 'Deployment'));
  const pod = deployment.spec!.template.spec!;
  const [container] = pod.containers;
  const settings = new Map(container!.env!.map(({ name, value }) => [name, value]));
  for (const name of settings.keys()) expect(settingNames).toContain(name);
  const pauseSeconds = Number(container!.lifecycle!.preStop!.sleep!.seconds);
  // The drain's window and the three seconds in which a node is out after it.
  expect(pod.terminationGracePeriodSeconds).toBeGreaterThan(pauseSeconds + Number(settings.get('DRAIN_WINDOW')) + 3);
  expect(pod.securityContext).toMatchObject({ runAsNonRoot: true });
  expect([container!.startupProbe, container!.livenessProbe, container!.readinessProbe]).toMatchObject([
    { httpGet: { path: '/health/started', port: 'http' } },
    { httpGet: { path: '/health/live', port: 'http' } },
    { httpGet: { path: '/health/ready', port: 'http' } },
  ]);
  // A check of the server may take two seconds.
  for (const probe of [container!.startupProbe!, container!.readinessProbe!]) expect(probe.timeoutSeconds).toBe(4);
  expect(() => manifestsOf('apiVersion: v1\nkind: Service\nmetadata: { name: 1 }\n---\n')).toThrow();
});

// Helm is a download of 75 MB.
if (process.env['LONG'] === '1') {
  test('the chart makes these manifests, and others for roles, rules and an ingress', async () => {
    const { faults, manifests } = await renderChart();
    expect(faults).toEqual([]);
    expect(manifestHead + manifests).toBe(read('deploy/kubernetes/sobranie.yaml'));
    const roles = await renderChart({
      services: { all: null, ws: { role: 'ws', replicas: 4 }, sse: { role: 'sse' }, api: { role: 'api,relay' } },
      rules: 'export default {};\n',
      ingress: { enabled: true, host: 'a.example.com', tlsSecret: 'tls' },
    });
    const made = manifestsOf(roles.manifests);
    expect(made.filter(({ kind }) => kind === 'Deployment').map(({ metadata }) => metadata.name)).toEqual([
      'sobranie-api',
      'sobranie-sse',
      'sobranie-ws',
    ]);
    const ingress = new Ingress(made.find(({ kind }) => kind === 'Ingress'));
    expect(
      Object.fromEntries(
        ingress.spec!.rules![0]!.http!.paths.map(({ path, backend }) => [path, backend.service!.name]),
      ),
    ).toEqual({ '/realtime': 'sobranie-api', '/realtime/events': 'sobranie-sse', '/realtime/ws': 'sobranie-ws' });
    for (const wrong of [{ drainWindow: '20' }, { services: { all: { role: 'everything' } } }, { replicas: 3 }]) {
      expect(await renderChart(wrong).catch((error: unknown) => error)).toBeInstanceOf(Error);
    }
  });
}

// Where no registry can be reached either: the base images are made of this machine's files.
if (process.env['LONG'] === '1') {
  test('buildah builds the image of the Dockerfile, and it runs as it says: without rights, healthy, ending in order', async () => {
    const { config, run } = await buildImage(root);
    expect(config).toMatchObject({ User: '65532:65532', WorkingDir: '/etc/sobranie', StopSignal: 'SIGTERM' });
    const [{ url }, port] = [await createDatabase(), await freePort()];
    const settings = { DATABASE_URL: url, PORT: String(port), ALLOW_ANONYMOUS: 'true' };
    const server = await listening(run([...config.Entrypoint, ...config.Cmd], settings), 60_000);
    const [kind, ...check] = config.Healthcheck.Test;
    expect(kind).toBe('CMD');
    expect(await run(check, { PORT: String(port) }).waitForExit(60_000)).toBe(0);
    expect(readFileSync(`/proc/${server.pid}/status`, 'utf8')).toMatch(/^Uid:\t65532\t65532\t/m);
    const socket = await WebSocketClient.open(server.url);
    expect(await socket.request({ type: 'subscribe', channel: 'a' })).toMatchObject({ type: 'subscribed' });
    await socket.close();
    expect(await server.stop('SIGTERM', 60_000)).toBe(0);
    expect(await run(check, { PORT: String(port) }).waitForExit(60_000)).toBe(1);
  });
}

test('the unit of systemd has no fault', async () => {
  const folder = temporaryFolder('unit');
  const program = join(folder, 'sobranie');
  writeFileSync(program, '#!/bin/sh\n');
  chmodSync(program, 0o755);
  const unit = join(folder, 'sobranie.service');
  const text = read('deploy/systemd/sobranie.service');
  writeFileSync(unit, text.replace('/usr/local/bin/sobranie start', `${program} start`));
  const verify = Bun.spawn(['systemd-analyze', 'verify', unit], { stdout: 'pipe', stderr: 'pipe' });
  const [out, errors] = await Promise.all([verify.stdout.text(), verify.stderr.text()]);
  expect([await verify.exited, out + errors]).toEqual([0, '']);
  // It is not killed while it drains.
  expect(Number(/TimeoutStopSec=(\d+)/.exec(text)?.[1])).toBeGreaterThan(20 + 3);
});

test('the image and the services of compose.yaml name what is there', () => {
  const dockerfile = read('Dockerfile');
  const commands = new Set(createProgram().commands.map((command) => command.name()));
  for (const [, command = ''] of dockerfile.matchAll(
    /(?:CMD|ENTRYPOINT) \[(?:"\/usr\/local\/bin\/sobranie", )?"(\w+)"\]/g,
  )) {
    expect(commands).toContain(command);
  }
  expect(dockerfile).toContain(`BUILDER=docker.io/oven/bun:${Bun.version}`);
  const { services } = Bun.YAML.parse(read('compose.yaml')) as {
    services: Record<string, { environment?: Record<string, string>; volumes?: string[]; stop_grace_period?: string }>;
  };
  for (const name of ['node1', 'node2']) {
    expect(Number.parseInt(services[name]!.stop_grace_period!, 10)).toBeGreaterThan(20 + 3);
    for (const setting of Object.keys(services[name]!.environment!)) expect(settingNames).toContain(setting);
  }
  const mounted = Object.values(services)
    .flatMap(({ volumes = [] }) => volumes)
    .filter((volume) => volume.startsWith('./'));
  expect(mounted.length).toBeGreaterThanOrEqual(5);
  for (const volume of mounted) expect([volume, existsSync(join(root, volume.split(':')[0]!))]).toEqual([volume, true]);
  // All that the build copies in, and no more than that is sent to it.
  for (const [, path = ''] of read('.dockerignore').matchAll(/^!(\S+)$/gm)) {
    expect([path, existsSync(join(root, path))]).toEqual([path, true]);
  }
});
