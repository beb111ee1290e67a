// `sobranie completion`: a script for a shell that completes commands and their options. It is made from the commands as
// they are, so it knows no others.

import type { Command } from 'commander';
import { print, WrongCall } from './output.ts';

interface Word {
  readonly name: string;
  readonly description: string;
  /** The long forms of its options. */
  readonly options: readonly string[];
}

const shells: Readonly<Record<string, (words: readonly Word[]) => string>> = { bash, zsh, fish };

export function addCompletion(program: Command): void {
  const names = Object.keys(shells).join(', ');
  program
    .command('completion')
    .description(`a script that completes commands in a shell: ${names}`)
    .argument('<shell>', names)
    .action((shell: string) => {
      const make = Object.hasOwn(shells, shell) ? shells[shell] : undefined;
      if (make === undefined) throw new WrongCall(`"${shell}" is not known; there are ${names}`);
      print(make(wordsOf(program)));
    });
}

function wordsOf(program: Command): Word[] {
  return program.commands.map((command) => ({
    name: command.name(),
    description: command.description().replaceAll("'", '’'),
    options: command.options.map(({ long }) => long ?? '').filter((long) => long !== ''),
  }));
}

function bash(words: readonly Word[]): string {
  const cases = words.map(({ name, options }) => `    ${name}) words='${options.join(' ')}' ;;`).join('\n');
  return `# In ~/.bashrc: eval "$(sobranie completion bash)"
_sobranie() {
  local words='${words.map(({ name }) => name).join(' ')}'
  if [ "$COMP_CWORD" -gt 1 ]; then
    case "\${COMP_WORDS[1]}" in
${cases}
    *) words='' ;;
    esac
  fi
  COMPREPLY=($(compgen -W "$words" -- "\${COMP_WORDS[COMP_CWORD]}"))
}
complete -o default -F _sobranie sobranie`;
}

function zsh(words: readonly Word[]): string {
  const commands = words
    .map(({ name, description }) => `    '${name}:${description.replaceAll(':', '\\:')}'`)
    .join('\n');
  const cases = words.map(({ name, options }) => `    ${name}) compadd -- ${options.join(' ')}; _files ;;`).join('\n');
  return `#compdef sobranie
# In ~/.zshrc, after compinit: eval "$(sobranie completion zsh)"
_sobranie() {
  local -a commands=(
${commands}
  )
  if (( CURRENT == 2 )); then
    _describe command commands
  else
    case "$words[2]" in
${cases}
    esac
  fi
}
compdef _sobranie sobranie`;
}

function fish(words: readonly Word[]): string {
  const lines = words.flatMap(({ name, description, options }) => [
    `complete -c sobranie -n __fish_use_subcommand -f -a ${name} -d '${description}'`,
    ...options.map((option) => `complete -c sobranie -n '__fish_seen_subcommand_from ${name}' -l ${option.slice(2)}`),
  ]);
  return ['# sobranie completion fish > ~/.config/fish/completions/sobranie.fish', ...lines].join('\n');
}
