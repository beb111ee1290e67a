// The executable's entry, and that of `bun run sobranie`: without a command, or with `start`, the server.

const [command = 'start'] = process.argv.slice(2);
if (command === 'start') {
  await import('./main.ts');
} else {
  console.error(`"${command}" is no command`);
  process.exit(1);
}

export {};
