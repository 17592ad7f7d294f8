/** What this machine offers; the only place that asks it. */
import { readFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import type { CudaProbe } from '../cuda/probe.ts'
import type { Machine } from '../placement/types.ts'

/** Looking for GPUs takes a thread and loads the driver, so it is done only where somebody wants one. */
const NOT_PROBED: CudaProbe = { devices: [], problem: 'none was looked for' }

/** Numbers of a list as Linux writes them: `0-3,8`. */
function numbersOf(list: string): number[] {
  return list
    .trim()
    .split(',')
    .filter((part) => part !== '')
    .flatMap((part) => {
      const [first, end = first] = part.split('-').map(Number) as [number, number?]
      return Array.from({ length: end - first + 1 }, (_, i) => first + i)
    })
}

/**
 * Physical cores among the processors that this process may use. `read` returns a file's text or throws. Undefined where the system does not tell.
 */
export function countPhysicalCores(read: (path: string) => string): number | undefined {
  try {
    const allowed = /^Cpus_allowed_list:(.*)$/m.exec(read('/proc/self/status'))?.[1] ?? ''
    const cores = numbersOf(allowed).map((cpu) => read(`/sys/devices/system/cpu/cpu${cpu}/topology/thread_siblings_list`).trim())
    return new Set(cores).size || undefined
  } catch {
    return undefined
  }
}

/** Cores this process may use (affinity and control groups counted), memory that can be taken now; GPUs where `cuda` has looked for them. */
export function thisMachine(cuda: CudaProbe = NOT_PROBED): Machine {
  const cores = availableParallelism()
  const physicalCores = countPhysicalCores((path) => readFileSync(path, 'latin1'))
  return {
    cores,
    physicalCores: Math.min(cores, physicalCores ?? cores),
    availableBytes: process.availableMemory(),
    devices: cuda.devices,
    ...(cuda.problem === undefined ? {} : { deviceProblem: cuda.problem }),
  }
}
