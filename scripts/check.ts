// `bun run check`: types, lint and format, all three whatever the first ones say. Each is a script of its own too.

import { runToEnd } from './run-to-end.ts';

const checks = ['types', 'lint', 'format:check'];
const failed: string[] = [];
for (const check of checks) {
  const code = await runToEnd([process.execPath, 'run', check], { limitSeconds: 300 });
  if (code !== 0) failed.push(check);
}
console.log(failed.length === 0 ? `${checks.join(', ')}: fine` : `failed: ${failed.join(', ')}`);
process.exit(failed.length === 0 ? 0 : 1);
