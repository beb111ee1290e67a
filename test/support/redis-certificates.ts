// Certificates made by openssl for one test: an authority, and what it signed for 127.0.0.1.

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { temporaryFolder } from './janitor.ts';

export interface TestCertificates {
  /** Paths of PEM files. */
  readonly authority: string;
  readonly certificate: string;
  readonly key: string;
}

export function makeCertificates(name = '127.0.0.1'): TestCertificates {
  const folder = temporaryFolder('certificates');
  const path = (file: string): string => join(folder, file);
  const openssl = (...args: string[]): void => {
    const { success, stderr } = Bun.spawnSync(['openssl', ...args], { cwd: folder, timeout: 20_000 });
    if (!success) throw new Error(`openssl ${args[0] ?? ''} failed: ${stderr.toString()}`);
  };
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2'];
  const isAddress = /^[\d.]+$/.test(name);
  openssl('req', '-x509', ...key, '-keyout', 'ca.key', '-out', 'ca.pem', '-subj', '/CN=Test authority');
  openssl('req', ...key.slice(0, -2), '-keyout', 'server.key', '-out', 'server.csr', '-subj', '/CN=Test Redis');
  const signed = ['-CA', 'ca.pem', '-CAkey', 'ca.key', '-CAcreateserial', '-days', '2', '-extfile', 'extensions'];
  writeFileSync(path('extensions'), `subjectAltName=${isAddress ? 'IP' : 'DNS'}:${name}\n`);
  openssl('x509', '-req', '-in', 'server.csr', '-out', 'server.pem', ...signed);
  return { authority: path('ca.pem'), certificate: path('server.pem'), key: path('server.key') };
}
