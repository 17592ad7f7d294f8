/** `tandem completion`: a script with which a shell completes commands, options and files. */
import { Argument, type Command } from 'commander'
import { completionScript, type ShellName, SHELLS } from '../completion-scripts.ts'
import { completedProgram } from '../completion-tree.ts'
import type { Io } from '../io.ts'

export function define(command: Command, io: Io): void {
  command
    .addArgument(new Argument('<shell>', 'whose script to print').choices(SHELLS))
    .addHelpText(
      'after',
      `
Examples:
  $ source <(tandem completion bash)                        in ~/.bashrc
  $ source <(tandem completion zsh)                         in ~/.zshrc, behind compinit
  $ tandem completion fish > ~/.config/fish/completions/tandem.fish
`,
    )
    .action((shell: ShellName) => io.write(completionScript(shell, completedProgram(command.parent!))))
}
