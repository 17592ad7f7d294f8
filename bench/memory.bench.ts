/** Decode from memory: matrices larger than any cache, on 1 and on 2 threads, beside the machine's read bandwidth measured the same way. */
import { FORMATS, type FormatName } from '../src/abi/formats.ts'
import { checkProduct, productWork } from './kernels.bench.ts'
import { BenchArena, makeProduct, productBytes } from './support/arena.ts'
import { Crew } from './support/crew.ts'
import { readLoop } from './support/read-loop.ts'
import { type Case, expect, isWanted, type Settings, type Suite } from './support/suite.ts'

const COLUMNS = 2048
const PAGE_BYTES = 65536
const SPINS = 20_000
const threadsText = (threads: number): string => `${threads} thread${threads > 1 ? 's' : ''}`

async function* reads(settings: Settings): AsyncGenerator<Case> {
  const counts = [1, settings.threads].filter((threads) => isWanted(settings, 'memory', `read, ${threadsText(threads)}`))
  if (counts.length === 0) return
  const pages = Math.ceil(settings.memoryBytes / PAGE_BYTES)
  const memory = new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true })
  const bytes = pages * PAGE_BYTES
  const check = (): void => {
    const read = readLoop(memory)
    new Uint8Array(memory.buffer).fill(0)
    expect(read(0, bytes) === 0, 'zeros')
    // the last line counts, and an even number of equal ones cancel out
    new Uint8Array(memory.buffer)[bytes - 64] = 1
    expect(read(0, bytes) === 1, 'a one in the last line')
    new Uint8Array(memory.buffer).fill(0x55)
  }
  for (const threads of counts) {
    const crew = await Crew.start(threads, { kind: 'read', memory, begin: 0, bytes }, SPINS)
    yield { name: `read, ${threadsText(threads)}`, work: [{ amount: bytes, unit: 'GB/s' }], check, run: () => crew.round() }
    await crew.stop()
  }
}

async function* cases(settings: Settings): AsyncGenerator<Case> {
  yield* reads(settings)
  for (const format of Object.keys(FORMATS) as FormatName[]) {
    const counts = [1, settings.threads].filter((threads) => isWanted(settings, 'memory', `${format}, ${threadsText(threads)}`))
    if (counts.length === 0) continue
    const panelBytes = FORMATS[format].panelBytes * (COLUMNS / FORMATS[format].blockElements)
    const rows = Math.floor(settings.memoryBytes / panelBytes / 8) * 64
    const arena = await BenchArena.make(productBytes(format, rows, COLUMNS, 1))
    const product = makeProduct(arena, format, rows, COLUMNS, 1)
    for (const threads of counts) {
      const crew = await Crew.start(threads, { kind: 'product', arena: arena.handle, product }, SPINS)
      const check = (): void => {
        arena.floats(product.y, rows).fill(NaN)
        crew.round()
        checkProduct(arena, product)
      }
      yield { name: `${format}, ${threadsText(threads)}`, work: productWork(product).slice(0, 1), check, run: () => crew.round() }
      await crew.stop()
    }
  }
}

export const suite: Suite = { name: 'memory', about: 'decode of 1 token from memory', bothModes: true, cases }
