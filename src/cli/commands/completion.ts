/** `tandem completion`: a script with which a shell completes commands, options and files. */
import { basename } from 'node:path'
import { Argument, type Command } from 'commander'
import { TandemError } from '../../errors.ts'
import { completionScript, type ShellName, SHELLS } from '../completion-scripts.ts'
import { completedProgram } from '../completion-tree.ts'
import type { Io } from '../io.ts'

export function define(command: Command, io: Io): void {
  command
    .addArgument(new Argument('[shell]', 'whose script to print (default: the one that $SHELL names)').choices(SHELLS))
    .addHelpText(
      'after',
      `
Examples:
  $ source <(tandem completion bash)                        in ~/.bashrc
  $ source <(tandem completion zsh)                         in ~/.zshrc, behind compinit
  $ tandem completion fish > ~/.config/fish/completions/tandem.fish
`,
    )
    .action((shell: ShellName = ownShell()) => io.write(completionScript(shell, completedProgram(command.parent!))))
}

/** Throws `ERR_ARGUMENT` where it is none of ours. */
function ownShell(): ShellName {
  const name = basename(process.env['SHELL'] ?? '')
  const own = SHELLS.find((shell) => shell === name)
  if (own) return own
  throw new TandemError('ERR_ARGUMENT', `there is no shell: name one of ${SHELLS.join(', ')}`)
}
