/** From an error to one line on stderr and an exit code. */
import { CommanderError } from 'commander'
import { type ErrorCode, TandemError } from '../errors.ts'

/** How the library's options are called on the command line, where the two differ by more than `--` and hyphens. */
const OPTION_NAMES: Readonly<Record<string, string>> = { contextTokens: '--context', output: '--output' }

/** What a person can do at the command line, where the library's message does not say so. */
const ADVICE: Partial<Record<ErrorCode, string>> = {
  ERR_CONTEXT_OVERFLOW: '; --context makes it longer, up to what the model was trained for',
}

/** `topK: must be ...` becomes `--top-k: must be ...`. */
function inOptionNames(message: string): string {
  return message.replace(/^([a-z]+(?:[A-Z][a-z]*)*)(?=:? must be |: )/, (name) => {
    return OPTION_NAMES[name] ?? `--${name.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`
  })
}

/** `error CODE: what, where, what to do`, on one line whatever a file's strings put into the message. */
export function errorLine(error: unknown): string {
  const { code, message } = TandemError.from(error)
  const text = code === 'ERR_ARGUMENT' ? inOptionNames(message) : `${message}${ADVICE[code] ?? ''}`
  // oxlint-disable-next-line no-control-regex -- control characters are what must not get through
  return `error ${code}: ${text.replaceAll(/[\u0000-\u001F\u007F-\u009F]+/g, ' ').trim()}`
}

/** Tells what went wrong. `TANDEM_DEBUG=1` adds the stack and the causes. */
export function reportError(error: unknown): void {
  process.stderr.write(`${errorLine(error)}\n`)
  if (!process.env['TANDEM_DEBUG']) return
  for (let each: unknown = error; each instanceof Error; each = each.cause) process.stderr.write(`${each.stack}\n`)
}

/** 2 for wrong usage, 1 for everything else that failed; 0 for help and version, which commander reports as errors too. */
export function exitCodeOf(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2
  return TandemError.is(error) && error.code === 'ERR_ARGUMENT' ? 2 : 1
}
