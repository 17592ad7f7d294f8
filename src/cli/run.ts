/** One command from its arguments to the exit code. */
import { CommanderError } from 'commander'
import type { Interruption } from './interruption.ts'
import { Io } from './io.ts'
import { buildProgram, withoutHelpOfNothing } from './program.ts'
import { exitCodeOf, reportError } from './report.ts'

/** Sets the exit code and lets the process end by itself, so that everything written to a pipe arrives. */
export async function main(args: readonly string[], interruption: Interruption): Promise<void> {
  process.on('uncaughtException', (error) => {
    reportError(error)
    process.exit(1)
  })
  const io = new Io(interruption)
  let code = 0
  try {
    const argv = withoutHelpOfNothing(args)
    const program = await buildProgram(io, argv)
    interruption.signal.throwIfAborted()
    await program.parseAsync(argv, { from: 'user' })
  } catch (error) {
    code = exitCodeOf(error)
    // an interruption makes whatever it cut short fail; commander has spoken already
    if (!interruption.reason && !(error instanceof CommanderError)) reportError(error)
  }
  if (interruption.reason && interruption.reason !== 'EPIPE') io.talk(process.stderr.isTTY ? '\ninterrupted' : 'interrupted')
  process.exitCode = interruption.exitCode ?? code
  interruption.release()
}
