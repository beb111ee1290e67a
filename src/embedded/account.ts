// The account that PostgreSQL runs as. It refuses to run as root, so a server that runs as root (containers, CI) starts
// its programs as an unprivileged account, through setpriv. Otherwise they run as the server's own user.

import { lchownSync, lstatSync, readFileSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { EmbeddedPostgresError, systemErrorCode } from './embedded-error.ts';

export interface PostgresAccount {
  /** The command line that runs `argv` as this account. */
  command(argv: readonly string[]): string[];
  /** Gives a file, or a folder with all it holds, to this account. */
  own(path: string): void;
}

interface Identity {
  readonly uid: number;
  readonly gid: number;
}

/** Capabilities to enter folders that the user may not, the weaker first; containers often lack that one. */
const enteringCapabilities = ['dac_read_search', 'dac_override'];

/**
 * `cluster` is the data directory; the owner of an existing one is kept. `reachable` are paths that the account must be
 * able to enter.
 */
export function chooseAccount(options: { cluster: string; reachable: readonly string[] }): PostgresAccount {
  if (process.getuid?.() !== 0) return { command: (argv) => [...argv], own: () => undefined };
  const setpriv = Bun.which('setpriv');
  if (setpriv === null) {
    throw new EmbeddedPostgresError(
      'PostgreSQL does not run as root, and setpriv (util-linux) is not installed to run it as another user;' +
        ' start the server as an ordinary user, or set DATABASE_URL',
    );
  }
  const identity = ownerOf(options.cluster) ?? unprivilegedIdentity();
  const prefix = [setpriv, `--reuid=${identity.uid}`, `--regid=${identity.gid}`, '--clear-groups'];
  const own = (path: string): void => chownTree(path, identity);
  for (const flags of [[], ...enteringCapabilities.map(capabilityFlags)]) {
    const command = (argv: readonly string[]): string[] => [...prefix, ...flags, '--', ...argv];
    if (options.reachable.every((path) => canReach(command, path))) return { command, own };
  }
  throw new EmbeddedPostgresError(
    `PostgreSQL, which must not run as root, cannot reach ${options.reachable.join(' or ')} as user ${identity.uid};` +
      ' make the folders above enterable (chmod o+x), or set DATA_DIR or DATABASE_URL',
  );
}

/**
 * A checkout under /root or another 0700 folder is closed to everyone but root: PostgreSQL enters it by one ambient
 * capability. PostgreSQL looks for its files with access(2), for which the kernel ignores the capabilities of a
 * non-root caller unless `no_setuid_fixup` is set.
 */
function capabilityFlags(capability: string): string[] {
  return ['--securebits=+no_setuid_fixup', `--inh-caps=+${capability}`, `--ambient-caps=+${capability}`];
}

function canReach(command: (argv: readonly string[]) => string[], path: string): boolean {
  const { success } = Bun.spawnSync(command(['test', '-x', path]), {
    cwd: '/',
    stdio: ['ignore', 'ignore', 'ignore'],
  });
  return success;
}

function ownerOf(cluster: string): Identity | undefined {
  try {
    const { uid, gid } = statSync(cluster);
    return uid === 0 ? undefined : { uid, gid };
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return undefined;
    throw error;
  }
}

function unprivilegedIdentity(): Identity {
  const accounts = readFileSync('/etc/passwd', 'utf8').split('\n');
  for (const name of ['postgres', 'nobody']) {
    const [, , uid, gid] = accounts.find((line) => line.startsWith(`${name}:`))?.split(':') ?? [];
    if (Number(uid) > 0) return { uid: Number(uid), gid: Number(gid) };
  }
  throw new EmbeddedPostgresError(
    'PostgreSQL does not run as root, and there is neither a user postgres nor nobody; set DATABASE_URL',
  );
}

/** Follows no symbolic link: the account could have made one to a file that it does not own. */
function chownTree(path: string, { uid, gid }: Identity): void {
  lchownSync(path, uid, gid);
  if (!lstatSync(path).isDirectory()) return;
  for (const name of readdirSync(path, { recursive: true, encoding: 'utf8' })) lchownSync(join(path, name), uid, gid);
}
