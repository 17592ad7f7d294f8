/** What the conformance suite needs of an executor: buffers, and its kernels called by name. One suite runs over every host in `HOSTS`. */
import { readFileSync } from 'node:fs'
import { ACTIVATION, FORMATS, type Activation, type FormatName } from '../../src/abi/formats.ts'
import { recordBytes, type KernelExports } from '../../src/abi/kernels.ts'
import type { KernelBuild } from '../../src/wasm/kernels.ts'

/** Names of the kernels. */
export type KernelName = keyof KernelExports

/** An executor under test. Addresses are numbers, as the kernels take them. */
export interface KernelHost {
  readonly name: string
  /** Which kernels and formats it has; cases of others are not run. */
  readonly kernels: ReadonlySet<KernelName>
  readonly formats: ReadonlySet<FormatName>
  /** Reserves bytes, 64-byte aligned, filled with 0xa5 so that reads of unwritten memory show. */
  allocate(bytes: number): number
  /** Forgets all buffers. */
  reset(): void
  write(address: number, bytes: ArrayBufferView): void
  read(address: number, bytes: number): Uint8Array
  call<Name extends KernelName>(name: Name, ...args: Parameters<KernelExports[Name]>): number
  /** The values that one activation record stands for, and whether they are in the matrix's order of columns. */
  decodeRecord(activation: Activation, record: Uint8Array, columns: number): Float64Array
}

const STACK_BYTES = 65536
const PAGE_BYTES = 65536

/** A module instance over a memory, with its stack ending at `stackTop`. */
export function instantiateKernels(
  module: WebAssembly.Module,
  memory: WebAssembly.Memory,
  stackTop?: number,
): KernelExports & { heapBase: number } {
  const { exports } = new WebAssembly.Instance(module, { env: { memory } })
  const heapBase = Number((exports['__heap_base'] as WebAssembly.Global).value)
  const stackPointer = exports['__stack_pointer'] as WebAssembly.Global
  stackPointer.value = stackTop ?? heapBase + STACK_BYTES
  return { ...(exports as unknown as KernelExports), heapBase }
}

/** Reads one of the built modules. */
export function loadKernels(build: KernelBuild): WebAssembly.Module {
  return new WebAssembly.Module(readFileSync(new URL(`../../wasm/dist/kernels-${build}.wasm`, import.meta.url)))
}

/** A shared memory of a given size. */
export function sharedMemory(bytes: number): WebAssembly.Memory {
  const pages = Math.ceil(bytes / PAGE_BYTES)
  return new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true })
}

/** The layout of `wasm/activations.h`. */
export function decodeWasmRecord(activation: Activation, record: Uint8Array, columns: number): Float64Array {
  if (activation === 'q16x32' || activation === 'q16x256') {
    const [digit, half] = [activation === 'q16x32' ? 'q8x32' : 'q8x256', record.length / 2] as const
    const rest = decodeWasmRecord(digit, record.subarray(half), columns)
    return decodeWasmRecord(digit, record.subarray(0, half), columns).map((value, column) => value + rest[column]!)
  }
  const view = new DataView(record.buffer, record.byteOffset, record.byteLength)
  const block = { f32: 1, q8x32: 32, q8x256: 256 }[activation]
  const blockBytes = recordBytes(activation, block)
  return Float64Array.from({ length: columns }, (_, column) => {
    if (activation === 'f32') return view.getFloat32(4 * column, true)
    const at = Math.floor(column / block) * blockBytes
    const k = column % block
    if (activation === 'q8x32') return view.getInt8(at + k) * view.getFloat32(at + 32, true)
    // within 64: a0 a1 b0 b1 a2 a3 b2 b3 ...
    const l = k % 32
    const place = Math.floor(k / 64) * 64 + Math.floor(l / 2) * 4 + Math.floor((k % 64) / 32) * 2 + (l % 2)
    const group = Math.floor(k / 64) * 4 + Math.floor(l / 16) * 2 + Math.floor((k % 64) / 32)
    return view.getInt8(at + place) * view.getInt16(at + 288 + 2 * group, true) * view.getFloat32(at + 320, true)
  })
}

/** The WASM executor's kernels in one shared memory. */
export function wasmHost(build: KernelBuild, bytes = 128 << 20): KernelHost {
  const memory = sharedMemory(bytes)
  const kernels = instantiateKernels(loadKernels(build), memory)
  const base = kernels.heapBase + STACK_BYTES
  let top = base
  return {
    name: `wasm ${build}`,
    kernels: new Set(Object.keys(kernels).filter((name) => typeof kernels[name as KernelName] === 'function') as KernelName[]),
    formats: new Set(Object.keys(FORMATS) as FormatName[]),
    allocate(count) {
      const address = (top + 63) & ~63
      top = address + count
      if (top > bytes) throw new Error(`the host's ${bytes} bytes are used up`)
      new Uint8Array(memory.buffer, address, count).fill(0xa5)
      return address
    },
    reset() {
      top = base
    },
    write(address, data) {
      new Uint8Array(memory.buffer, address, data.byteLength).set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength))
    },
    read(address, count) {
      return new Uint8Array(memory.buffer, address, count).slice()
    },
    call(name, ...args) {
      const kernel: (...values: number[]) => number = kernels[name]
      return kernel(...args)
    },
    decodeRecord: decodeWasmRecord,
  }
}

/** Every executor that the suite runs over. */
export const HOSTS: readonly KernelHost[] = [wasmHost('dot'), wasmHost('relaxed'), wasmHost('simd')]

/** Copies data into a fresh buffer and returns its address. */
export function upload(host: KernelHost, data: ArrayBufferView): number {
  const address = host.allocate(data.byteLength)
  host.write(address, data)
  return address
}

/** `count` floats at an address. */
export function floats(host: KernelHost, address: number, count: number): Float32Array {
  return new Float32Array(host.read(address, count * 4).buffer)
}

/** `count` integers at an address. */
export function integers(host: KernelHost, address: number, count: number): Int32Array {
  return new Int32Array(host.read(address, count * 4).buffer)
}

/** Quantises f32[tokens, columns] and returns the records' address. */
export function quantizeRows(host: KernelHost, activation: Activation, rows: Float32Array, columns: number): number {
  const tokens = rows.length / columns
  const records = host.allocate(tokens * recordBytes(activation, columns))
  const status = host.call('quantize', ACTIVATION[activation], records, upload(host, rows), columns, tokens)
  if (status !== 0) throw new Error(`quantize: status ${status}`)
  return records
}
