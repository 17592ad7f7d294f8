/** `tandem doctor`: whether this machine, and a model on it, are as they should be. */
import type { Command } from 'commander'
import { TandemError } from '../../errors.ts'
import { type Check, checkMachine } from '../doctor.ts'
import { checkModel } from '../doctor-model.ts'
import { addEngineOptions, type EngineFlags, modelPath } from '../engine-options.ts'
import type { Io } from '../io.ts'
import { errorLine } from '../report.ts'

interface Flags extends EngineFlags {
  readonly json?: true
}

export function define(command: Command, io: Io): void {
  addEngineOptions(command)
    .option('--json', '{"ok","checks":[{"name","status","text","advice","code"}]}')
    .addHelpText(
      'after',
      `
Node, V8, the kernels, cores, memory, GPU and driver; then the model, and the pipeline that would run it here with these options. Loads nothing.
A warning is something that could be better; exit 1 when something cannot work.

Examples:
  $ tandem doctor
  $ tandem doctor model.gguf --context 32768 --pipeline hybrid
`,
    )
    .action((model: string | undefined, flags: Flags) => run(model, flags, io))
}

async function run(model: string | undefined, flags: Flags, io: Io): Promise<void> {
  const checks: Check[] = []
  const { json, ...engineFlags } = flags
  const tell = async (check: Check): Promise<void> => {
    checks.push(check)
    if (!json) await io.write(checkText(check))
  }
  // asking a driver that has to start takes seconds
  await io.during('checking', async () => {
    const machine = checkMachine()
    let next = await machine.next()
    for (; !next.done; next = await machine.next()) await tell(next.value)
    for await (const check of checkModel(modelPath(model), engineFlags, next.value.devices, io)) await tell(check)
  })
  const broken = checks.filter(({ status }) => status === 'fail')
  if (json) await io.writeJson({ ok: broken.length === 0, checks })
  else if (broken.length === 0) await io.write(`\n${summaryOf(checks)}\n`)
  const [first] = broken
  if (first)
    throw new TandemError(
      first.code ?? 'ERR_INTERNAL',
      `${broken.length} of ${checks.length} checks failed, first '${first.name}': ${first.text}`,
    )
}

const NAME_WIDTH = 10

/** `ok    node       26.1.0`, and what to do on a line of its own. */
export function checkText({ name, status, text, advice, code }: Check): string {
  // a failed check's message may have strings of a file in it
  const safe = code === undefined ? text : errorLine(new TandemError(code, text)).replace(`error ${code}: `, '')
  const line = `${status.padEnd(5)} ${name.padEnd(NAME_WIDTH)} ${safe}\n`
  return advice === undefined ? line : `${line}${' '.repeat(NAME_WIDTH + 7)}-> ${advice}\n`
}

function summaryOf(checks: readonly Check[]): string {
  const warnings = checks.filter(({ status }) => status === 'warn').length
  if (warnings === 0) return 'everything is well'
  return `it works; ${warnings === 1 ? 'one thing' : `${warnings} things`} could be better`
}
