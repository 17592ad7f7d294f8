/** The CUDA worker's thread: one device, one stream of steps. See `protocol.ts` for what it is told and when. */
import { workerData } from 'node:worker_threads'
import { expose } from 'comlink'
import { TandemError } from '../errors.ts'
import type { MachineDevice } from '../placement/types.ts'
import { DeviceEngine } from './device-engine.ts'
import { type Handle, loadCudaLibrary } from './library.ts'
import type { CudaStats, CudaTask, CudaWorkerApi, Outcome } from './protocol.ts'

async function outcome<T>(run: () => T | Promise<T>): Promise<Outcome<T>> {
  try {
    return { value: await run() }
  } catch (error) {
    return { error: TandemError.from(error).toRecord() }
  }
}

let opened: DeviceEngine | undefined

function engine(): DeviceEngine {
  if (!opened) throw new TandemError('ERR_INTERNAL', 'the CUDA worker has no device open')
  return opened
}

const api: CudaWorkerApi = {
  devices: (library) =>
    outcome(async (): Promise<MachineDevice[]> => {
      const { functions } = await loadCudaLibrary(library)
      if (functions.tcu_device_count() === 0) return []
      // the first is the one that plans are made for, and to ask any takes some of its memory: CUDA_VISIBLE_DEVICES chooses another
      const { name, bytes, freeBytes } = functions.tcu_device_info(0)
      return [{ index: 0, name, bytes, freeBytes }]
    }),

  open: (task: CudaTask) =>
    outcome(async (): Promise<Handle> => {
      opened = new DeviceEngine(task, await loadCudaLibrary(task.library))
      return opened.handle
    }),

  load: () => outcome(() => engine().load()),

  serve: () => outcome((): Promise<CudaStats> => engine().serve()),

  close: () => outcome(() => engine().close()),

  reclaim: (library, handle) =>
    outcome(async () => {
      const { functions } = await loadCudaLibrary(library)
      functions.tcu_close(handle)
    }),
}

expose(api, (workerData as { readonly port: MessagePort }).port)
