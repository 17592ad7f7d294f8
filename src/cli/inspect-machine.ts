/** What `tandem inspect --machine` tells: what there is to run on, and how the kernels were compiled for it. */
import { cpus, totalmem } from 'node:os'
import { probeCuda } from '../cuda/probe.ts'
import { thisMachine } from '../engine/machine.ts'
import type { MachineDevice } from '../placement/types.ts'
import { compileKernels, type KernelBuild } from '../wasm/kernels.ts'
import { bytesText } from './text.ts'

/** The object of `--json`. */
export interface MachineDescription {
  readonly node: string
  readonly v8: string
  readonly platform: string
  readonly processor: string
  /** Logical cores that this process may use, and the physical ones among them: the default of `--threads`. */
  readonly cores: number
  readonly physicalCores: number
  readonly memoryBytes: number
  readonly availableBytes: number
  readonly executors: readonly string[]
  readonly gpus: readonly MachineDevice[]
  /** Why there is no GPU; null when there is one. */
  readonly gpuProblem: string | null
  readonly kernels: KernelBuild
  readonly revectorized: boolean
  /** Why the kernels do not use 256-bit vectors; null when they do. */
  readonly notRevectorized: string | null
}

/** Asks the machine, and compiles and tests the kernels as loading a model does. */
export async function describeMachine(): Promise<MachineDescription> {
  const { cores, physicalCores = cores, availableBytes, devices, deviceProblem } = thisMachine(await probeCuda())
  const { build, notRevectorized } = await compileKernels()
  return {
    node: process.versions.node,
    v8: process.versions.v8,
    platform: `${process.platform}-${process.arch}`,
    processor: cpus()[0]?.model.trim() ?? 'unknown',
    cores,
    physicalCores,
    memoryBytes: totalmem(),
    availableBytes,
    executors: ['wasm', ...(devices.length > 0 ? ['cuda'] : [])],
    gpus: devices,
    gpuProblem: deviceProblem ?? null,
    kernels: build,
    revectorized: notRevectorized === undefined,
    notRevectorized: notRevectorized ?? null,
  }
}

/** The same for a person: rows of a table. */
export function machineRows(machine: MachineDescription): string[][] {
  return [
    ['node', machine.node],
    ['v8', machine.v8],
    ['platform', machine.platform],
    ['processor', machine.processor],
    ['cores', `${machine.physicalCores} physical, ${machine.cores} logical`],
    ['memory', bytesText(machine.memoryBytes)],
    ['available', bytesText(machine.availableBytes)],
    ['executors', machine.executors.join(', ')],
    ...machine.gpus.map(({ name, bytes, freeBytes }) => ['gpu', `${name}, ${bytesText(freeBytes)} of ${bytesText(bytes)} free`]),
    ...(machine.gpuProblem === null ? [] : [['gpu', machine.gpuProblem]]),
    ['kernels', machine.kernels],
    ['revectorised', machine.notRevectorized === null ? 'yes, 256-bit vectors' : `no: ${machine.notRevectorized}`],
  ]
}
