/** Compiles the kernel module, ahead of its first use, and makes one instance of it per arena and worker. */
import { readFileSync } from 'node:fs'
import { setImmediate } from 'node:timers/promises'
import { KERNEL_STATUS, type KernelExports } from '../abi/kernels.ts'
import { debugLog, msSince } from '../diagnostics/debug.ts'
import { TandemError } from '../errors.ts'
import { packageFile } from '../package-root.ts'
import { createArena, PAGE_BYTES } from '../ring/arena.ts'
import { Bench, SELF_TEST, SELF_TEST_BYTES } from './self-test.ts'
import { canTierUp, type RevectorizeFacts, revectorizeFacts, whyNotRevectorized, withTierUp } from './v8-flags.ts'

/** Which build of the kernels runs: with plain SIMD, with relaxed SIMD, or that and sums of products of bytes in one instruction (`wasm/simd.h`). */
export type KernelBuild = 'dot' | 'relaxed' | 'simd'

/** A compiled build; the module can be posted to workers, which do not compile again. */
export interface Kernels {
  readonly build: KernelBuild
  readonly module: WebAssembly.Module
  /** Why the module does not use 256-bit vectors; undefined when it does. */
  readonly notRevectorized: string | undefined
}

function readBuild(build: KernelBuild): Buffer<ArrayBuffer> {
  const url = packageFile(`wasm/dist/kernels-${build}.wasm`)
  try {
    return readFileSync(url)
  } catch (cause) {
    throw new TandemError('ERR_FILE_ACCESS', `the kernels (${url.pathname}) cannot be read; run npm run build:wasm`, { cause })
  }
}

/** The module with an empty custom section. V8 gives equal bytes equal code in all of the process, so what is compiled with flags must differ. */
export function named(bytes: Uint8Array, name: string): Uint8Array<ArrayBuffer> {
  const text = Buffer.from(name)
  return Buffer.concat([bytes, Buffer.from([0, text.length + 1, text.length]), text])
}

/** An instance to test; module data, stack, buffers. */
export function makeBench(module: WebAssembly.Module): Bench {
  const start = 2 * PAGE_BYTES
  const memory = createArena(start + SELF_TEST_BYTES)
  return new Bench(instantiateKernels(module, memory, start, PAGE_BYTES), memory, start)
}

/**
 * Rounds until only optimised code runs: V8 compiles a function in its first call and optimises it in its second, for what it was called with so far;
 * a function that calls others through a pointer may go back once when it meets a new one.
 */
const ROUNDS = 3

/** A module of optimised code, and what it computed, case by case. */
interface Optimized {
  readonly module: WebAssembly.Module
  readonly results: Uint8Array[]
}

/** Compiles, and makes V8 optimise every function. That takes milliseconds for each, in this thread; other work gets its turn in between. */
async function optimize(bytes: Uint8Array<ArrayBuffer>, isRevectorized: boolean): Promise<Optimized> {
  const module = withTierUp(isRevectorized, () => new WebAssembly.Module(bytes))
  const bench = makeBench(module)
  let results: Uint8Array[] = []
  for (let round = 0; round < ROUNDS; round++) {
    results = []
    for (const test of SELF_TEST) {
      results.push(withTierUp(isRevectorized, () => bench.run(test)))
      await setImmediate()
    }
  }
  return { module, results }
}

/** Names of the self-test's cases in which `results` differ from what the same bytes compute without flags: not by a bit, all operations are the same. */
function findWrong(bytes: Uint8Array<ArrayBuffer>, results: readonly Uint8Array[]): string[] {
  const bench = makeBench(new WebAssembly.Module(bytes))
  return SELF_TEST.filter((test, index) => Buffer.compare(bench.run(test), results[index]!) !== 0).map(({ name }) => name)
}

/**
 * Compiles one build, revectorised unless there is a reason against it or the self-test finds it wrong. `verify` stands between the self-test and
 * its verdict, for tests.
 */
export async function prepare(
  bytes: Uint8Array<ArrayBuffer>,
  reason: string | undefined,
  verify: (results: Uint8Array[]) => Uint8Array[] = (results) => results,
): Promise<Omit<Kernels, 'build'>> {
  let notRevectorized = reason
  if (notRevectorized === undefined) {
    const { module, results } = await optimize(named(bytes, 'tandem revectorized'), true)
    const wrong = findWrong(named(bytes, 'tandem reference'), verify(results))
    if (wrong.length === 0) return { module, notRevectorized }
    notRevectorized = `failed the self-test in ${wrong.length} of ${SELF_TEST.length} cases, first in '${wrong[0]}'`
    process.emitWarning(`revectorised kernels: ${notRevectorized}; using 128-bit vectors`, { code: 'TANDEM_SELF_TEST' })
  }
  const plain = named(bytes, 'tandem')
  const { module } = canTierUp(process.versions.v8) ? await optimize(plain, false) : { module: new WebAssembly.Module(plain) }
  return { module, notRevectorized }
}

const debug = debugLog('kernels')

async function compile(wanted: KernelBuild | undefined): Promise<Kernels> {
  const facts = revectorizeFacts()
  const hasDot = facts.cpuFlags?.has('avx_vnni') === true
  const build = wanted ?? (hasDot ? 'dot' : 'relaxed')
  const vnni = facts.cpuFlags ? `the processor has ${hasDot ? '' : 'no '}AVX-VNNI` : 'the system does not tell what the processor has'
  debug?.(`trying build '${build}': ${wanted ? 'it was asked for' : vnni}; V8 ${facts.v8} on ${facts.arch}`)
  const begun = performance.now()
  const kernels = await compileBuild(build, wanted !== undefined, facts)
  const { notRevectorized } = kernels
  const vectors = notRevectorized === undefined ? '256-bit vectors, self-test passed' : `128-bit vectors: ${notRevectorized}`
  debug?.(`build '${kernels.build}' ready in ${msSince(begun)}, ${vectors}`)
  return kernels
}

/** `isWanted`: it, or an error; else the plain one where this V8 cannot run it. */
async function compileBuild(build: KernelBuild, isWanted: boolean, facts: RevectorizeFacts): Promise<Kernels> {
  const relaxed = build === 'simd' ? undefined : readBuild(build)
  if (relaxed && (isWanted || WebAssembly.validate(relaxed))) return { build, ...(await prepare(relaxed, whyNotRevectorized(facts))) }
  return { build: 'simd', ...(await prepare(readBuild('simd'), 'the plain SIMD build is not meant for it')) }
}

const compiled = new Map<KernelBuild | undefined, Promise<Kernels>>()

/**
 * The fastest build that this V8 can run, or the one asked for; compiled, optimised and tested once per process. Throws `ERR_FILE_ACCESS`.
 */
export function compileKernels(wanted?: KernelBuild): Promise<Kernels> {
  const kernels = compiled.get(wanted) ?? compile(wanted)
  compiled.set(wanted, kernels)
  return kernels
}

/** What a kernel instance exports besides the kernels. */
interface InstanceExports extends KernelExports {
  readonly __stack_pointer: WebAssembly.Global
  readonly __heap_base: WebAssembly.Global<number>
}

/** Instantiates the kernels over an arena; `stackTop` is the end of this worker's own stack there. */
export function instantiateKernels(
  module: WebAssembly.Module,
  memory: WebAssembly.Memory,
  stackTop: number,
  moduleBytes: number,
): KernelExports {
  const exports = new WebAssembly.Instance(module, { env: { memory } }).exports as unknown as InstanceExports
  if (exports.__heap_base.value > moduleBytes) {
    throw new TandemError(
      'ERR_INTERNAL',
      `the kernels' static data ends at ${exports.__heap_base.value}, beyond the ${moduleBytes} bytes kept for it`,
    )
  }
  // All instances over one memory would otherwise use the same stack.
  exports.__stack_pointer.value = stackTop
  return exports
}

const STATUS_TEXT: Readonly<Record<number, string>> = {
  [KERNEL_STATUS.format]: 'does not know the format',
  [KERNEL_STATUS.shape]: 'cannot do this shape',
  [KERNEL_STATUS.notFinite]: 'met a weight that is not finite',
}

/** Throws `ERR_KERNEL` unless a kernel returned ok. */
export function check(status: number, kernel: string): void {
  if (status === KERNEL_STATUS.ok) return
  throw new TandemError('ERR_KERNEL', `${kernel} ${STATUS_TEXT[status] ?? `returned ${status}`}`)
}
