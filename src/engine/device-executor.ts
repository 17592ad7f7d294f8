/**
 * An executor with a GPU: the CUDA worker takes the steps, and where the pool has routed experts, its workers take what the device hands over.
 *
 *     main --step ring--> CUDA worker --hand-offs--> pool        one port, one poison: a failure of either half is the whole's
 */
import type { BestLogits } from '../abi/step.ts'
import { CudaExecutor, type CudaExecutorOptions } from '../cuda/executor.ts'
import type { TandemError } from '../errors.ts'
import { started } from '../ring/started.ts'
import { StepPort, type StepSlot } from '../ring/step-port.ts'
import { bytesToRead, makeWasmExecutor, type WasmExecutor, type WasmExecutorOptions } from '../wasm/executor.ts'
import type { TraceRow } from '../trace/trace-event.ts'
import type { EngineExecutor, UserStages } from './engine.ts'

/** What both halves need to start; the port and the pool's arenas are made here. */
export interface DeviceExecutorOptions {
  readonly cuda: Omit<CudaExecutorOptions, 'port' | 'arenas' | 'arena' | 'threads'>
  /** Where the pool has routed experts. */
  readonly pool?: Omit<WasmExecutorOptions, 'port'> | undefined
  readonly ringDepth: number
}

/** Reports the bytes of two halves as one: each is given a function that takes its own. */
function together({ cuda, pool }: DeviceExecutorOptions): { cuda: (done: number) => void; pool: (done: number) => void } {
  const total = cuda.loads.reduce((sum, { fileBytes }) => sum + fileBytes, 0) + (pool ? bytesToRead(pool) : 0)
  const done = { cuda: 0, pool: 0 }
  const half = (name: 'cuda' | 'pool') => (bytes: number) => {
    done[name] = bytes
    cuda.onProgress?.(done.cuda + done.pool, total)
  }
  return { cuda: half('cuda'), pool: half('pool') }
}

/** See the file's header. Made by `startDeviceExecutor`. */
export class DeviceExecutor implements EngineExecutor {
  readonly cuda: CudaExecutor
  readonly pool: WasmExecutor | undefined
  readonly #port: StepPort
  #closed: Promise<void> | undefined

  constructor(port: StepPort, cuda: CudaExecutor, pool?: WasmExecutor) {
    this.#port = port
    this.cuda = cuda
    this.pool = pool
  }

  get traceRows(): readonly TraceRow[] {
    return [...this.cuda.traceRows, ...(this.pool?.traceRows ?? [])]
  }

  get failure(): TandemError | undefined {
    return this.#port.failure
  }

  tryClaim(): StepSlot | undefined {
    return this.#port.tryClaim()
  }

  publish(slot: StepSlot): void {
    this.#port.publish(slot)
  }

  cancel(slot: StepSlot): void {
    this.#port.cancel(slot)
  }

  whenCompleted(slot: StepSlot): Promise<boolean> {
    return this.#port.whenCompleted(slot)
  }

  logits(row: number): Float32Array<SharedArrayBuffer> {
    return this.cuda.logits(row)
  }

  hidden(row: number): Float32Array<SharedArrayBuffer> {
    return this.cuda.hidden(row)
  }

  best(row: number, count: number): BestLogits {
    return this.cuda.best(row, count)
  }

  get userStages(): UserStages | undefined {
    return this.cuda.userStages
  }

  /** Resolves when both halves are loaded and serve. Throws the first failure of either. */
  async whenReady(): Promise<void> {
    await Promise.all([this.cuda.whenReady(), this.pool?.whenReady()])
  }

  close(): Promise<void> {
    this.#closed ??= this.#close()
    return this.#closed
  }

  /** The device first: it must have let go of the arenas before they are dropped. */
  async #close(): Promise<void> {
    await this.cuda.close()
    await this.pool?.close()
  }
}

/** Starts both halves, which load at the same time. On any failure everything is released before it rejects. */
export async function startDeviceExecutor(options: DeviceExecutorOptions): Promise<DeviceExecutor> {
  return started(await makeDeviceExecutor(options))
}

/** As `startDeviceExecutor`, without waiting for the weights. */
export async function makeDeviceExecutor(options: DeviceExecutorOptions): Promise<DeviceExecutor> {
  const { cuda, pool, ringDepth } = options
  const port = new StepPort({ stepBytes: cuda.program.step.bytes, ringDepth, consumers: 1 })
  const report = together(options)
  const wasm = pool && (await makeWasmExecutor({ ...pool, port, onProgress: report.pool }))
  const device = new CudaExecutor({
    ...cuda,
    port,
    arenas: wasm?.arenas ?? [],
    arena: pool?.program.arena,
    threads: pool?.threads ?? 0,
    onProgress: report.cuda,
  })
  return new DeviceExecutor(port, device, wasm)
}
