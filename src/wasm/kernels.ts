/** Compiles the kernel module and makes one instance of it per arena and worker. */
import { readFileSync } from 'node:fs'
import { KERNEL_STATUS, type KernelExports } from '../abi/kernels.ts'
import { TandemError } from '../errors.ts'
import { packageFile } from '../package-root.ts'

/** Which build of the kernels runs. */
export type KernelBuild = 'relaxed' | 'simd'

/** A compiled build; the module can be posted to workers, which do not compile again. */
export interface Kernels {
  readonly build: KernelBuild
  readonly module: WebAssembly.Module
}

function readBuild(build: KernelBuild): Buffer<ArrayBuffer> {
  const url = packageFile(`wasm/dist/kernels-${build}.wasm`)
  try {
    return readFileSync(url)
  } catch (cause) {
    throw new TandemError('ERR_FILE_ACCESS', `the kernels (${url.pathname}) cannot be read; run npm run build:wasm`, { cause })
  }
}

/** Compiles in the background. V8's compile jobs do not keep Node's event loop alive, so a timer does. */
async function compile(bytes: Buffer<ArrayBuffer>): Promise<WebAssembly.Module> {
  const alive = setInterval(() => undefined, 1000)
  try {
    return await WebAssembly.compile(bytes)
  } finally {
    clearInterval(alive)
  }
}

/** Compiles the fastest build that this V8 can run, or the one asked for. Throws `ERR_FILE_ACCESS`. */
export async function compileKernels(wanted?: KernelBuild): Promise<Kernels> {
  const relaxed = wanted === 'simd' ? undefined : readBuild('relaxed')
  if (relaxed && (wanted === 'relaxed' || WebAssembly.validate(relaxed))) {
    return { build: 'relaxed', module: await compile(relaxed) }
  }
  return { build: 'simd', module: await compile(readBuild('simd')) }
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
