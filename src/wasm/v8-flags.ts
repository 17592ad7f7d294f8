/**
 * V8's flags for compiling the kernels, and where they may be used (docs/decisions/0005).
 *
 * Flags belong to the whole process, so they are set only inside a synchronous call and put back before it returns. None of them changes what code of
 * the host program computes: `--no-liftoff`, the usual way to have a module optimised ahead of time, must not be among them, because V8 ends the process
 * when it changes while another thread compiles (reproduced on Node 26).
 */
import { readFileSync } from 'node:fs'
import { setFlagsFromString } from 'node:v8'

/** A flag, and how it is put back. */
interface V8Flag {
  readonly name: string
  readonly set: string
  readonly reset: string
}

const flag = (name: string): V8Flag => ({ name, set: `--${name}`, reset: `--no-${name}` })

/** A function is optimised when it is called for the second time, before that call goes on. */
const TIER_UP: readonly V8Flag[] = [
  flag('wasm-sync-tier-up'),
  // not after 13,000,000 bytes of code, V8's default in Node 24 and 26
  { name: 'wasm-tiering-budget', set: '--wasm-tiering-budget=1', reset: '--wasm-tiering-budget=13000000' },
]

/** The optimising compiler makes 256-bit code of pairs of 128-bit operations. */
const REVECTORIZE = flag('experimental-wasm-revectorize')

/** True when a command line says what `name` shall be: `--name`, `--no-name`, `--no_name`, `--name=value`. */
function isNamed(name: string, execArgv: readonly string[]): boolean {
  const pattern = new RegExp(`^--(no-?)?${name}(=|$)`)
  return execArgv.some((argument) => pattern.test(argument.replaceAll('_', '-')))
}

/** True where `withTierUp` does what it says: in V8 12.4 (Node 22) every turn of a loop would compile the function again. */
export function canTierUp(v8: string): boolean {
  return Number.parseInt(v8, 10) >= 13
}

/**
 * Runs `work`, which must be synchronous, with functions optimised at once; modules must be made inside as well. Flags of the process's own command
 * line stay as they are.
 */
export function withTierUp<Result>(isRevectorized: boolean, work: () => Result): Result {
  const flags = [...TIER_UP, ...(isRevectorized ? [REVECTORIZE] : [])].filter(({ name }) => !isNamed(name, process.execArgv))
  try {
    for (const { set } of flags) setFlagsFromString(set)
    return work()
  } finally {
    for (const { reset } of flags) setFlagsFromString(reset)
  }
}

/** What decides whether the kernels may be revectorised. */
export interface RevectorizeFacts {
  readonly v8: string
  readonly arch: string
  /** Names of the processor's features, undefined where the system does not tell. */
  readonly cpuFlags: ReadonlySet<string> | undefined
  /** The variable TANDEM_REVECTORIZE. */
  readonly wish: string | undefined
}

/** Versions of V8 whose revectorised code was checked: that of Node 26. Node 24's (13.6) computes wrong results, Node 22's (12.4) does nothing. */
const CHECKED_V8 = /^14\.6\./

/** Why the kernels are not to be revectorised; undefined when they may be. */
export function whyNotRevectorized({ v8, arch, cpuFlags, wish }: RevectorizeFacts): string | undefined {
  if (wish === '0') return 'switched off by TANDEM_REVECTORIZE=0'
  if (arch !== 'x64') return `needs an x64 processor with AVX2, this is ${arch}`
  if (cpuFlags && !cpuFlags.has('avx2')) return 'the processor has no AVX2'
  if (!CHECKED_V8.test(v8)) return `not known to be right in V8 ${v8}; Node 26 has it`
  return undefined
}

/** Linux tells the processor's features; elsewhere V8 looks itself and leaves the code as it is. */
function readCpuFlags(): ReadonlySet<string> | undefined {
  try {
    const line = /^flags\s*:(.*)$/m.exec(readFileSync('/proc/cpuinfo', 'latin1'))
    return line ? new Set(line[1]!.trim().split(/\s+/)) : undefined
  } catch {
    return undefined
  }
}

/** The facts of this process. */
export function revectorizeFacts(): RevectorizeFacts {
  return { v8: process.versions.v8, arch: process.arch, cpuFlags: readCpuFlags(), wish: process.env['TANDEM_REVECTORIZE'] }
}
