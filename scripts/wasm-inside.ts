// A plugin of builds: what a package loads from a file beside its own module is not beside a bundle or in an executable. Kafka's
// client needs such a file at its first import, of which the same package has a form with the file inside.

import type { BunPlugin } from 'bun';

export const wasmInside: BunPlugin = {
  name: 'wasm inside',
  setup: (build) => {
    build.onResolve({ filter: /^@platformatic\/wasm-utils$/ }, ({ path, importer }) => ({
      path: Bun.resolveSync(`${path}/bundled`, importer),
    }));
  },
};
