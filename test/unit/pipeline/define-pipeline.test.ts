/** Pipelines: what may be written in one, where it may come from, and that those of the package stay small. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { readdirSync, readFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { definePipeline, type PipelineOptions } from '../../../src/pipeline/define.ts'
import { PIPELINE_NAMES, resolvePipeline } from '../../../src/pipeline/resolve.ts'
import type { UserStageOptions } from '../../../src/pipeline/user-stage.ts'
import { STAGES } from '../../../src/placement/stages.ts'
import { codeOf } from '../../fixtures/engine-micro.ts'

const invalid = expect.objectContaining({ code: 'ERR_PIPELINE_INVALID' })

describe('definePipeline', () => {
  test('places every stage', () => {
    const { placement, ringDepth, name, overlap } = definePipeline({ name: 'mine', executor: 'cuda', stages: { routedExperts: 'wasm' } })
    expect(Object.keys(placement)).toEqual([...STAGES])
    expect(Object.entries(placement).filter(([, executor]) => executor === 'wasm')).toEqual([['routedExperts', 'wasm']])
    expect([name, ringDepth, overlap]).toEqual(['mine', 2, true])
  })

  test.each([1, 2, 4, 8, 16])('allows %i steps in flight', (ringDepth) => {
    expect(definePipeline({ name: 'mine', executor: 'wasm', ringDepth }).ringDepth).toBe(ringDepth)
  })

  test.each([
    { name: '', executor: 'wasm' },
    { name: 'mine', executor: 'abacus' },
    { name: 'mine', executor: 'wasm', stages: { routedExperts: 'abacus' } },
    { name: 'mine', executor: 'wasm', stages: { tea: 'wasm' } },
    ...['no', 1, null].map((overlap) => ({ name: 'mine', executor: 'wasm', overlap })),
    ...[0, 3, 17, 1.5, Number.NaN, '2'].map((ringDepth) => ({ name: 'mine', executor: 'wasm', ringDepth })),
  ])('refuses %o', (options) => {
    expect(() => definePipeline(options as unknown as PipelineOptions)).toThrow(invalid)
  })
})

describe('user stages and tensors', () => {
  const good = { name: 'mine', after: 'router', module: '/tmp/mine.mjs' } as const
  const define = (...userStages: readonly unknown[]) =>
    definePipeline({ name: 'p', executor: 'wasm', userStages: userStages as UserStageOptions[] })

  test('are filled in, and come out of a second time as they are', async () => {
    const layers = [3, 1]
    const pipeline = definePipeline({
      name: 'p',
      executor: 'wasm',
      tensors: [{ pattern: 'exps', executor: 'wasm' }],
      userStages: [good, { name: 'other', before: 'head', module: new URL('file:///tmp/x.mjs'), export: 'f', steer: true, data: layers }],
    })
    const common = { layers: 'all', queue: 8, whenFull: 'drop' }
    layers.push(5)
    expect(pipeline.userStages).toEqual([
      {
        ...common,
        name: 'mine',
        when: 'after',
        stage: 'router',
        module: 'file:///tmp/mine.mjs',
        export: 'default',
        steer: false,
        data: undefined,
      },
      { ...common, name: 'other', when: 'before', stage: 'head', module: 'file:///tmp/x.mjs', export: 'f', steer: true, data: [3, 1] },
    ])
    expect(pipeline.tensors).toEqual([{ pattern: 'exps', executor: 'wasm' }])
    expect(await resolvePipeline(pipeline)).toEqual(pipeline)
    expect(structuredClone(pipeline)).toEqual(pipeline)
  })

  test.each([
    { ...good, name: '' },
    { ...good, after: undefined },
    { ...good, before: 'router' },
    { ...good, after: 'tea' },
    { ...good, after: undefined, before: 'embed' },
    { ...good, module: undefined },
    { ...good, module: () => undefined },
    { ...good, export: '' },
    { ...good, steer: 1 },
    { ...good, data: () => undefined },
    { ...good, whenFull: 'panic' },
    ...[0, 3, 128].map((queue) => ({ ...good, queue })),
    ...[[], [-1], [1.5], 'none', 3].map((layers) => ({ ...good, layers })),
    { ...good, after: 'head', layers: [1] },
  ])('refuses %o', (options) => {
    expect(() => define(options)).toThrow(invalid)
  })

  test('refuses two of one name', () => {
    expect(() => define(good, { ...good, after: 'head' })).toThrow(/two user stages are named 'mine'/)
  })

  test('may stand anywhere, wherever the stages run', () => {
    for (const routedExperts of ['wasm', 'cuda'] as const) {
      const { userStages } = definePipeline({ name: 'p', executor: 'cuda', stages: { routedExperts }, userStages: [good] })
      expect(userStages).toEqual(define(good).userStages)
    }
  })
})

describe('resolvePipeline', () => {
  let directory: string
  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), 'tandem-pipeline-'))
  })
  afterAll(() => rm(directory, { recursive: true }))

  test('knows the built-in ones by name, and checks a pipeline that a program made', async () => {
    for (const name of PIPELINE_NAMES) expect((await resolvePipeline(name)).name).toBe(name)
    const mine = definePipeline({ name: 'mine', executor: 'wasm' })
    expect(await resolvePipeline(mine)).toEqual(mine)
    const serial = definePipeline({ name: 'serial', executor: 'cuda', overlap: false })
    expect(await resolvePipeline(serial)).toEqual(serial)
    const wrong = { ...mine, ringDepth: 3 }
    await expect(resolvePipeline(wrong)).rejects.toMatchObject({ code: 'ERR_PIPELINE_INVALID' })
  })

  test('imports one from a file, and checks it', async () => {
    const write = async (name: string, text: string): Promise<string> => {
      await writeFile(join(directory, name), text)
      return join(directory, name)
    }
    const placement = JSON.stringify(definePipeline({ name: 'x', executor: 'wasm' }).placement)
    const good = await write('good.mjs', `export default { name: 'from file', placement: ${placement}, ringDepth: 4 }`)
    expect(await resolvePipeline(good)).toMatchObject({ name: 'from file', ringDepth: 4 })
    const wrongs = [
      'export default 5',
      'export const pipeline = {}',
      `export default { name: 'x', placement: { embed: 'abacus' } }`,
      `throw new Error('no')`,
    ]
    for (const [index, text] of wrongs.entries()) {
      expect(await codeOf(resolvePipeline(await write(`wrong-${index}.mjs`, text)))).toBe('ERR_PIPELINE_INVALID')
    }
    expect(await codeOf(resolvePipeline(join(directory, 'absent.mjs')))).toBe('ERR_PIPELINE_INVALID')
  })

  test('those of the package are at most 60 lines', () => {
    const folder = new URL('../../../pipelines/', import.meta.url)
    const files = readdirSync(folder).filter((name) => name.endsWith('.ts'))
    expect(files.map((name) => name.replace('.ts', '')).sort()).toEqual([...PIPELINE_NAMES, 'rerank', 'router-statistics'].sort())
    for (const name of files) expect(readFileSync(new URL(name, folder), 'utf8').split('\n').length).toBeLessThanOrEqual(60)
  })
})
