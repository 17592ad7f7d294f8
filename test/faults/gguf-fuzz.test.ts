import { expect, test } from 'vitest'
import { TandemError } from '../../src/errors.ts'
import { openModelFile } from '../../src/gguf/open.ts'
import { describeModel } from '../../src/model/describe.ts'
import { inspectModel } from '../../src/model/inspect.ts'
import { fillRandom } from '../../src/synth/random.ts'
import { encodeGguf, temporaryDirectory, tinyGlm4moe } from '../fixtures/build-gguf.ts'

const CASES = 2000
const MOST_MILLISECONDS_PER_CASE = 2000
const MOST_BYTES = 256 * 1024 * 1024

/** Values that counts, lengths and offsets go wrong at. */
const EDGES = [0n, 1n, 0x7fn, 0xffffn, 0x7fff_ffffn, 0xffff_ffffn, 1n << 40n, (1n << 53n) - 1n, 1n << 63n, (1n << 64n) - 1n]

test(`${CASES} damaged files give a model or a TandemError, quickly and in little memory`, async () => {
  await using directory = await temporaryDirectory()
  const original = encodeGguf(tinyGlm4moe())
  const intact = await openModelFile(await directory.write('intact.gguf', original))
  const headerBytes = Math.min(...[...intact.tensors.values()].map((tensor) => tensor.offset))
  const before = memory()
  const outcomes = new Map<string, number>()
  for (let index = 0; index < CASES; index += 1) {
    const path = await directory.write('damaged.gguf', damage(original, headerBytes, index))
    const started = performance.now()
    const outcome = await open(path)
    expect(performance.now() - started, `case ${index}`).toBeLessThan(MOST_MILLISECONDS_PER_CASE)
    expect(outcome, `case ${index}`).toMatch(/^(ok|ERR_(?!INTERNAL))/)
    outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1)
  }
  expect(memory() - before).toBeLessThan(MOST_BYTES)
  // The damage is worth something only if it reaches many different checks.
  expect(outcomes.size).toBeGreaterThan(8)
}, 120_000)

async function open(path: string): Promise<string> {
  try {
    const file = await openModelFile(path)
    JSON.stringify(inspectModel(file))
    JSON.stringify(inspectModel(file, describeModel(file)))
    return 'ok'
  } catch (error) {
    return TandemError.is(error) ? error.code : `not a TandemError: ${String(error)}`
  }
}

/** One to four changes, mostly in the header, decided by the case's number. */
function damage(original: Buffer, headerBytes: number, index: number): Buffer {
  const random = new Uint32Array(16)
  fillRandom(random, `damage ${index}`)
  let bytes = Buffer.from(original)
  for (let change = 0; change <= random[0]! % 4; change += 1) {
    const [kind, where, what] = random.subarray(1 + change * 3, 4 + change * 3) as unknown as [number, number, number]
    // Vocabulary takes most of the header; half of the changes go to its first and last 2,500 bytes, where the structure is.
    const at = kind % 2 === 0 ? where % headerBytes : where % 5000 < 2500 ? where % 2500 : headerBytes - 1 - (where % 2500)
    switch ((kind >>> 8) % 6) {
      case 0:
        bytes[at] = what
        break
      case 1:
        bytes[at] = bytes[at]! ^ (1 << (what % 8))
        break
      case 2:
        if (at + 8 <= bytes.length) bytes.writeBigUInt64LE(EDGES[what % EDGES.length]!, at)
        break
      case 3:
        bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + (what % 64))])
        break
      case 4:
        bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(what % headerBytes, (what % headerBytes) + 32), bytes.subarray(at)])
        break
      default:
        bytes = bytes.subarray(0, what % 8 === 0 ? at : bytes.length)
    }
  }
  return bytes
}

function memory(): number {
  const { heapUsed, external } = process.memoryUsage()
  return heapUsed + external
}
