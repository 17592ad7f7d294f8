/** Asks for the GPUs of this machine, in a thread of its own that ends with the answer: the main thread never loads the library. */
import { debugLog, msSince } from '../diagnostics/debug.ts'
import { TandemError } from '../errors.ts'
import type { MachineDevice } from '../placement/types.ts'
import { delay } from '../ring/wait.ts'
import { locateCudaLibrary } from './locate.ts'
import { CudaWorkerClient } from './worker-client.ts'

/** GPUs, or why there are none. */
export interface CudaProbe {
  readonly devices: readonly MachineDevice[]
  readonly problem?: string
}

/** A driver that has to start first takes a few seconds. */
const PROBE_MS = 30_000

const debug = debugLog('cuda')

async function ask(library: string): Promise<CudaProbe> {
  const client = new CudaWorkerClient()
  try {
    const late = delay(PROBE_MS).then(() => new TandemError('ERR_TIMEOUT', `the driver has not answered for ${PROBE_MS} ms`))
    const devices = await Promise.race([client.call((api) => api.devices(library)), late])
    if (TandemError.is(devices)) return { devices: [], problem: devices.message }
    return devices.length > 0 ? { devices } : { devices, problem: 'no device: the driver knows none' }
  } catch (error) {
    return { devices: [], problem: TandemError.from(error).message }
  } finally {
    await client.terminate()
  }
}

/** The GPUs that the CUDA library can use. Never throws. */
export async function probeCuda(): Promise<CudaProbe> {
  const library = locateCudaLibrary()
  const begun = performance.now()
  const probe = 'problem' in library ? { devices: [], problem: library.problem } : await ask(library.path)
  debug?.(`probe: ${JSON.stringify({ ...library, ...probe })}, ${msSince(begun)}`)
  return probe
}
