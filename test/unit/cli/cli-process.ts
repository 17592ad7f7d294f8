/** Runs the real command line as a child process. */
import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { synthesize } from '../../../src/synth/synthesize.ts'
import { encodeGguf, temporaryDirectory, tinyGlm4moe } from '../../fixtures/build-gguf.ts'

/** The command's file. */
export const MAIN = fileURLToPath(new URL('../../../src/cli/main.ts', import.meta.url))

/** Everything a finished process left. */
export interface CliResult {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

/** How to start it. */
export interface CliOptions {
  /** Text for stdin, which is /dev/null otherwise. */
  readonly input?: string
  /** stdin is a pipe that the test writes to and that stays open. */
  readonly isInputOpen?: boolean
  readonly env?: Readonly<Record<string, string>>
}

/** Starts the command. `result` resolves when the process has ended and both streams are closed. */
export function startCli(
  args: readonly string[],
  { input, isInputOpen = false, env }: CliOptions = {},
): { child: ChildProcess; result: Promise<CliResult> } {
  const child = spawn(process.execPath, [MAIN, ...args], {
    env: { ...process.env, ...env },
    stdio: [input === undefined && !isInputOpen ? 'ignore' : 'pipe', 'pipe', 'pipe'],
  })
  if (input !== undefined) child.stdin?.end(input)
  const chunks: { stdout: Buffer[]; stderr: Buffer[] } = { stdout: [], stderr: [] }
  child.stdout?.on('data', (chunk: Buffer) => chunks.stdout.push(chunk))
  child.stderr?.on('data', (chunk: Buffer) => chunks.stderr.push(chunk))
  const result = new Promise<CliResult>((resolve, reject) => {
    child.on('error', reject)
    child.on('close', (code) =>
      resolve({ code, stdout: Buffer.concat(chunks.stdout).toString(), stderr: Buffer.concat(chunks.stderr).toString() }),
    )
  })
  return { child, result }
}

/** Bit of SIGHUP in the mask of caught signals; Node itself catches SIGINT and SIGTERM from the start, but not this one. */
const SIGHUP_BIT = 1n

/** Resolves when the command answers signals: what comes earlier ends any process, and no program can do anything about that. */
export async function answersSignals({ pid }: ChildProcess): Promise<void> {
  if (!existsSync('/proc/self/status')) return setTimeout(1000)
  for (;;) {
    const caught = /^SigCgt:\s*([0-9a-f]+)$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? '0'
    if ((BigInt(`0x${caught}`) & SIGHUP_BIT) !== 0n) return
    await setTimeout(2)
  }
}

/** Runs the command to its end. */
export function cli(args: readonly string[], options?: CliOptions): Promise<CliResult> {
  return startCli(args, options).result
}

/** Small models in a directory that goes away with the returned object. */
export async function cliModels(): Promise<{ path: (name: string) => string } & Record<'tiny' | 'tokensOnly', string> & AsyncDisposable> {
  const directory = await temporaryDirectory()
  const path = (name: string): string => join(directory.path, name)
  const spec = tinyGlm4moe()
  await writeFile(path('tiny.gguf'), encodeGguf(spec))
  for (const key of spec.metadata.keys()) if (key.startsWith('tokenizer.')) spec.metadata.delete(key)
  await writeFile(path('tokens-only.gguf'), encodeGguf(spec))
  return {
    path,
    tiny: path('tiny.gguf'),
    tokensOnly: path('tokens-only.gguf'),
    [Symbol.asyncDispose]: () => directory[Symbol.asyncDispose](),
  }
}

/** A model that is busy for seconds when asked for 2,000 tokens. */
export async function busyModel(path: string): Promise<string> {
  await synthesize({ preset: 'micro', format: 'F32', expertFormat: 'F32', output: path })
  return path
}
