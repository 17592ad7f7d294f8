/** Fills a device's weight region: a piece is read from the file into a lane of registered memory while the lanes before it are copied. */
import { LOADED_UNIT_BYTES } from '../abi/control.ts'
import { TandemError } from '../errors.ts'
import { ShardFiles } from '../gguf/shard-files.ts'
import { toFloat32 } from '../gguf/vector.ts'
import type { DeviceLoad } from '../placement/device-loads.ts'
import { arenaBuffer, createArena, PAGE_BYTES } from '../ring/arena.ts'
import type { CudaFunctions, Handle } from './library.ts'
import { LOADED_WORD } from './results.ts'

/** Independent lanes of copies that the library has. */
const LANES = 4

/** What a load needs of the worker. */
export interface UploadTarget {
  readonly tcu: CudaFunctions
  readonly engine: Handle
  /** Address of the device's weight region. */
  readonly weights: number
  /** `results.ts`. */
  readonly words: Int32Array<SharedArrayBuffer>
  /** Registers memory with the device and gives its address. */
  readonly register: (memory: WebAssembly.Memory, bytes: number) => number
}

/** Registered memory, a piece for each lane. */
class Staging {
  readonly #laneBytes: number
  readonly #bytes: Uint8Array<SharedArrayBuffer>
  readonly #address: number

  constructor(pieceBytes: number, { register }: UploadTarget) {
    this.#laneBytes = Math.ceil(pieceBytes / PAGE_BYTES) * PAGE_BYTES
    const memory = createArena(this.#laneBytes * LANES)
    this.#bytes = new Uint8Array(arenaBuffer(memory))
    this.#address = register(memory, this.#laneBytes * LANES)
  }

  /** A lane's first `bytes`. */
  view(lane: number, bytes: number): Uint8Array<SharedArrayBuffer> {
    return this.#bytes.subarray(lane * this.#laneBytes, lane * this.#laneBytes + bytes)
  }

  address(lane: number): number {
    return this.#address + lane * this.#laneBytes
  }
}

/** Turns a vector of any float format, as it lies in the file, into f32 in place. */
function widen(load: DeviceLoad, lane: Uint8Array<SharedArrayBuffer>): void {
  const values = toFloat32(load.format, lane, load.columns)
  if (!values.every(Number.isFinite)) {
    throw new TandemError('ERR_WEIGHT_NOT_FINITE', `tensor ${load.tensor} holds a weight that is NaN or infinite; the file is damaged`)
  }
  new Float32Array(lane.buffer, lane.byteOffset, load.columns).set(values)
}

/** Loads until nothing is left or `shouldStop`. Throws `ERR_FILE_ACCESS`, `ERR_GGUF_TRUNCATED`, `ERR_WEIGHT_NOT_FINITE`, `ERR_DEVICE`. */
export function uploadWeights(
  target: UploadTarget,
  loads: readonly DeviceLoad[],
  paths: readonly string[],
  shouldStop: () => boolean,
): void {
  const { tcu, engine, weights, words } = target
  const staging = new Staging(Math.max(1, ...loads.map(({ fileBytes, bytes }) => Math.max(fileBytes, bytes))), target)
  const files = new ShardFiles(paths)
  let loaded = 0
  try {
    for (const [index, load] of loads.entries()) {
      if (shouldStop()) return
      const lane = index % LANES
      tcu.tcu_upload_wait(engine, lane)
      files.read(load.shard, staging.view(lane, load.fileBytes), load.fileOffset)
      if (load.isVector) widen(load, staging.view(lane, Math.max(load.fileBytes, load.bytes)))
      tcu.tcu_upload(engine, lane, weights + load.offset, staging.address(lane), load.bytes)
      loaded += load.fileBytes
      Atomics.store(words, LOADED_WORD, Math.ceil(loaded / LOADED_UNIT_BYTES))
    }
    for (let lane = 0; lane < LANES; lane++) tcu.tcu_upload_wait(engine, lane)
  } finally {
    files.close()
  }
}
