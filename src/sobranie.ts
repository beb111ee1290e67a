// The executable's entry, and that of `bun run sobranie`: without a command, or with `start`, the server.

const args = process.argv.slice(2);
if (args.length === 0 || (args[0] === 'start' && args.length === 1)) {
  await import('./main.ts');
} else {
  const { runProgram } = await import('./cli/program.ts');
  process.exit(await runProgram(args));
}

export {};
