import { readdirSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { openModelFile } from '../../../src/gguf/open.ts'
import { describeModel } from '../../../src/model/describe.ts'
import { GOLDEN_DIRECTORY, hasGolden } from '../../fixtures/golden-directory.ts'

const isHere = hasGolden('test/unit/model/golden-files.test.ts')
const list = (folder: string): string[] =>
  isHere ? readdirSync(`${GOLDEN_DIRECTORY}/${folder}`).filter((name) => name.endsWith('.gguf')) : ['(absent)']

describe.skipIf(!isHere)('files written by others', () => {
  test.each(list('models'))('%s is a complete glm4moe model', async (name) => {
    const model = describeModel(await openModelFile(`${GOLDEN_DIRECTORY}/models/${name}`))
    const isMicro = name.startsWith('micro')
    expect(model.hyper).toMatchObject({
      vocabulary: 1024,
      hidden: 256,
      layers: isMicro ? 3 : 4,
      denseLayers: 1,
      experts: 8,
      expertsUsed: isMicro ? 2 : 8,
    })
    expect(model.layers[1]!.attention.qNorm === undefined).toBe(name.includes('noqknorm'))
    expect(model.hyper.weightsScale).toBe(name.includes('noqknorm') ? 2.5 : 1)
    const format = /-([A-Z0-9_]+)\.gguf$/.exec(name)![1]
    expect(model.layers[1]!.routed!.gate.tensor.format).toBe(format)
  })

  test.each(list('vocab'))('%s opens, and is no model', async (name) => {
    const file = await openModelFile(`${GOLDEN_DIRECTORY}/vocab/${name}`)
    expect((file.metadata.get('tokenizer.ggml.tokens') as unknown[]).length).toBeGreaterThan(30_000)
    expect(() => describeModel(file)).toThrow(expect.objectContaining({ code: 'ERR_ARCH_UNKNOWN' }))
  })
})
