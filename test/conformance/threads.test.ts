/** Two threads run the kernels over one memory at the same time, each with its own stack and scratch, and get what one thread gets. */
import { Worker } from 'node:worker_threads'
import { expect, test } from 'vitest'
import { FORMATS, packedBytes, type FormatName } from '../../src/abi/formats.ts'
import { recordBytes, scratchBytes } from '../../src/abi/kernels.ts'
import { instantiateKernels, loadKernels, sharedMemory } from './kernel-host.ts'
import { randomRows, randomWeights } from './reference.ts'

const STACK_BYTES = 65536
const [ROWS, COLUMNS, TOKENS] = [64, 1024, 7]

/** Runs its half of the rows of every matrix many times; starts when the other one is there too. */
const THREAD = `
const { parentPort, workerData: { module, memory, stackTop, calls, turns, gate } } = require('node:worker_threads')
const { exports } = new WebAssembly.Instance(module, { env: { memory } })
exports.__stack_pointer.value = stackTop
const word = new Int32Array(memory.buffer, gate, 1)
Atomics.add(word, 0, 1)
Atomics.notify(word, 0)
while (Atomics.load(word, 0) < 2) Atomics.wait(word, 0, 1, 1000)
let status = 0
for (let turn = 0; turn < turns; turn++) for (const args of calls) status |= exports.matmul(...args)
parentPort.postMessage(status)
`

test.each(['dot', 'relaxed', 'simd'] as const)('two threads over one memory, %s', async (build) => {
  const bytes = 32 << 20
  const memory = sharedMemory(bytes)
  const module = loadKernels(build)
  const kernels = instantiateKernels(module, memory)
  let top = kernels.heapBase + STACK_BYTES
  const allocate = (count: number): number => {
    const address = (top + 63) & ~63
    top = address + count
    return address
  }
  const write = (data: Uint8Array | Float32Array): number => {
    const address = allocate(data.byteLength)
    new Uint8Array(memory.buffer).set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), address)
    return address
  }

  const gate = allocate(64)
  const stacks = [allocate(STACK_BYTES) + STACK_BYTES, allocate(STACK_BYTES) + STACK_BYTES]
  const scratches = [0, 1].map(() => allocate(scratchBytes(COLUMNS, 0, 0)))
  const x = write(randomRows(TOKENS * COLUMNS, 1))
  const jobs = (Object.keys(FORMATS) as FormatName[]).map((name) => {
    const format = FORMATS[name]
    const panels = allocate(packedBytes(format, ROWS, COLUMNS))
    expect(kernels.repack(format.id, panels, write(randomWeights(name, ROWS, COLUMNS, 2)), COLUMNS, ROWS)).toBe(0)
    const records = allocate(TOKENS * recordBytes(format.activation, COLUMNS))
    expect(kernels.quantize({ f32: 0, q8x32: 1, q8x256: 2 }[format.activation], records, x, COLUMNS, TOKENS)).toBe(0)
    const alone = allocate(TOKENS * ROWS * 4)
    const together = allocate(TOKENS * ROWS * 4)
    const call = (y: number, begin: number, end: number, scratch: number): Parameters<typeof kernels.matmul> => [
      format.id,
      0,
      y,
      ROWS,
      panels,
      records,
      0,
      0,
      0,
      0,
      COLUMNS,
      begin,
      end,
      TOKENS,
      scratch,
    ]
    expect(kernels.matmul(...call(alone, 0, ROWS, scratches[0]!))).toBe(0)
    return { alone, together, call }
  })

  const threads = [0, 1].map((i) => {
    const calls = jobs.map(({ together, call }) => call(together, (i * ROWS) / 2, ((i + 1) * ROWS) / 2, scratches[i]!))
    return new Worker(THREAD, { eval: true, workerData: { module, memory, stackTop: stacks[i], calls, turns: 100, gate } })
  })
  const statuses = await Promise.all(
    threads.map((thread) => new Promise((resolve, reject) => thread.once('message', resolve).once('error', reject))),
  )
  expect(statuses).toEqual([0, 0])
  const result = (address: number): Float32Array =>
    new Float32Array(memory.buffer.slice(address, address + TOKENS * ROWS * 4) as unknown as ArrayBuffer)
  for (const { alone, together } of jobs) expect(new Float32Array(result(together))).toEqual(new Float32Array(result(alone)))
})
