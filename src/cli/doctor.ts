/** What `tandem doctor` looks at: each check answers with a verdict and, where something can be done, with what. */
import { existsSync, readFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { type CudaProbe, probeCuda } from '../cuda/probe.ts'
import { thisMachine } from '../engine/machine.ts'
import { type ErrorCode, TandemError } from '../errors.ts'
import { describeMachine, type MachineDescription } from './inspect-machine.ts'
import { bytesText } from './text.ts'

/** `warn`: it works, and could work better. `fail`: something cannot work. */
export type Status = 'ok' | 'warn' | 'fail'

/** What was found. */
export interface Check {
  readonly name: string
  readonly status: Status
  readonly text: string
  /** What a person can do; absent where nothing needs doing. */
  readonly advice?: string
  /** Of what failed. */
  readonly code?: ErrorCode
}

/** Node's oldest version that runs this package, and the one whose V8 makes 256-bit code. */
const OLDEST_NODE = [22, 12] as const
const BEST_NODE = 26

/** Less than this is hardly enough for a small model. */
const LITTLE_BYTES = 2 ** 31

const ok = (name: string, text: string): Check => ({ name, status: 'ok', text })
const warn = (name: string, text: string, advice: string): Check => ({ name, status: 'warn', text, advice })

/** A check that failed with an error, whose message says what to do. */
export function failed(name: string, error: unknown): Check {
  const { code, message } = TandemError.from(error)
  return { name, status: 'fail', text: message, code }
}

/** Node's version. */
export function checkNode(version: string): Check {
  const [major = 0, minor = 0] = version.split('.').map(Number)
  const [oldMajor, oldMinor] = OLDEST_NODE
  if (major < oldMajor || (major === oldMajor && minor < oldMinor)) {
    const advice = `install Node ${BEST_NODE}`
    return { name: 'node', status: 'fail', text: `${version} is older than ${oldMajor}.${oldMinor}`, advice, code: 'ERR_DEVICE_ABSENT' }
  }
  return major < BEST_NODE ? warn('node', version, `Node ${BEST_NODE} runs the kernels faster`) : ok('node', version)
}

/** The processor's cores. */
export function checkCores(cores: number, physicalCores: number): Check {
  const text = `${physicalCores} physical, ${cores} logical`
  return cores > 1 ? ok('cores', text) : warn('cores', text, 'give the process more than one: the main thread and the workers share it')
}

/** Memory of the machine and what may be taken of it. */
export function checkMemoryOf({ memoryBytes, availableBytes }: Pick<MachineDescription, 'memoryBytes' | 'availableBytes'>): Check {
  const text = `${bytesText(availableBytes)} of ${bytesText(memoryBytes)} available`
  if (availableBytes >= Math.min(LITTLE_BYTES, memoryBytes / 4)) return ok('memory', text)
  return warn('memory', text, 'end other programs, or raise the limit of the container: a model has to fit in what is available')
}

/** The build of the kernels, and whether it runs as 256-bit code. */
export function checkKernels({
  kernels,
  notRevectorized,
  platform,
}: Pick<MachineDescription, 'kernels' | 'notRevectorized' | 'platform'>): Check[] {
  const build =
    kernels !== 'simd'
      ? ok('kernels', kernels === 'dot' ? 'relaxed SIMD, for AVX-VNNI' : 'relaxed SIMD')
      : warn(
          'kernels',
          'plain SIMD: this V8 has no relaxed SIMD',
          `install Node ${BEST_NODE}, and start it without flags that switch features off`,
        )
  if (notRevectorized === null) return [build, ok('vectors', '256-bit')]
  // other processors have nothing to gain
  if (!platform.endsWith('-x64')) return [build, ok('vectors', '128-bit, as wide as this processor has them')]
  return [build, warn('vectors', `128-bit: ${notRevectorized}`, 'Node 26 on a processor with AVX2 makes 256-bit code, which is faster')]
}

/** What the system says about an NVIDIA driver. */
export interface DriverFacts {
  /** Its version; null when none is loaded. */
  readonly version: string | null
  /** Whether this process can see a device of it. */
  readonly hasDevice: boolean
}

/** Linux only; elsewhere there is none for us. */
export function readDriver(): DriverFacts {
  let version: string | null = null
  try {
    version = /Kernel Module\s+(?:for \S+\s+)?([\d.]+)/.exec(readFileSync('/proc/driver/nvidia/version', 'latin1'))?.[1] ?? 'unknown'
  } catch {
    // no driver
  }
  return { version, hasDevice: existsSync('/dev/nvidia0') || existsSync('/dev/nvidiactl') }
}

/** The driver and the GPUs. A machine without one is not broken. */
export function checkGpu({ devices, problem }: CudaProbe, { version, hasDevice }: DriverFacts): Check[] {
  const driver =
    version === null && !hasDevice
      ? ok('driver', 'no NVIDIA driver; the CPU needs none')
      : ok('driver', `NVIDIA ${version ?? 'of unknown version'}`)
  const [device] = devices
  if (device) return [driver, ok('gpu', `${device.name}, ${bytesText(device.freeBytes)} of ${bytesText(device.bytes)} free`)]
  if (version === null && !hasDevice) return [driver, ok('gpu', 'none; everything runs on the CPU')]
  const advice = hasDevice
    ? 'without it everything runs on the CPU'
    : 'the driver is loaded and this process sees no device of it: give the container the GPU (docker run --gpus all)'
  return [driver, warn('gpu', problem ?? 'no device', advice)]
}

/** What the checks of this machine found, as they find it, and the GPUs for those that come after. */
export async function* checkMachine(): AsyncGenerator<Check, CudaProbe, undefined> {
  yield checkNode(process.versions.node)
  const { physicalCores } = thisMachine()
  try {
    const machine = await describeMachine()
    yield ok('v8', machine.v8)
    yield* checkKernels(machine)
    yield ok('processor', machine.processor)
    yield checkCores(machine.cores, machine.physicalCores)
    yield checkMemoryOf(machine)
  } catch (error) {
    yield failed('kernels', error)
    yield checkCores(availableParallelism(), physicalCores ?? availableParallelism())
  }
  const probe = await probeCuda()
  yield* checkGpu(probe, readDriver())
  return probe
}
