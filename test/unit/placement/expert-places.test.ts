/** Which layers' routed experts go on the GPU: pipelines, options, overrides and budgets, and what contradicts each other. */
import { describe, expect, test } from 'vitest'
import { definePipeline } from '../../../src/pipeline/define.ts'
import { checkMemory } from '../../../src/placement/memory.ts'
import type { PlacementOptions } from '../../../src/placement/options.ts'
import { makePlan } from '../../../src/placement/plan.ts'
import { type PipelineDefinition, STAGES } from '../../../src/placement/stages.ts'
import type { Plan } from '../../../src/placement/types.ts'
import cpu from '../../../pipelines/cpu.ts'
import gpu from '../../../pipelines/gpu.ts'
import hybrid from '../../../pipelines/hybrid.ts'
import { GPU_MACHINE, MACHINE } from '../../fixtures/engine-models.ts'
import { gpuModel } from '../../fixtures/gpu-models.ts'

const model = gpuModel({ layers: 6, expertFormat: 'Q4_0', vocabulary: 300 })
const LIMITS = { threads: 1, contextTokens: 64, ubatch: 4, sequences: 1 }

const planOf = (pipeline: PipelineDefinition, options: PlacementOptions = {}): Plan =>
  makePlan(model, GPU_MACHINE, pipeline, { ...LIMITS, ...options })

/** Layers whose experts are on the GPU, and on the pool. */
function expertsOf({ cuda, wasm }: Plan): { cuda: number[]; wasm: number[] } {
  const onDevice = cuda?.layers.flatMap(({ routed }, index) => (routed ? [index] : [])) ?? []
  return { cuda: onDevice, wasm: wasm?.layers.filter(({ routed }) => routed.length > 0).map(({ layer }) => layer) ?? [] }
}

const failure = (code: string, message: RegExp): unknown => expect.objectContaining({ code, message: expect.stringMatching(message) })

describe('pipelines', () => {
  test('cpu, gpu and hybrid', () => {
    expect(expertsOf(planOf(cpu))).toEqual({ cuda: [], wasm: [1, 2, 3, 4, 5] })
    expect(planOf(cpu).cuda).toBeUndefined()
    expect(expertsOf(planOf(gpu))).toEqual({ cuda: [1, 2, 3, 4, 5], wasm: [] })
    expect(planOf(gpu).wasm).toBeUndefined()
    expect(expertsOf(planOf(hybrid))).toEqual({ cuda: [], wasm: [1, 2, 3, 4, 5] })
    expect(planOf(hybrid).wasm!.holds).toBe('experts')
  })

  test.each(STAGES.filter((stage) => stage !== 'routedExperts'))('%s cannot be where the others are not', (stage) => {
    const alone = stage === 'embed' ? 'attention' : stage
    for (const [executor, other] of [
      ['cuda', 'wasm'],
      ['wasm', 'cuda'],
    ] as const) {
      const pipeline = definePipeline({ name: 'mine', executor, stages: { [stage]: other } })
      expect(() => planOf(pipeline)).toThrow(failure('ERR_PIPELINE_INVALID', new RegExp(`^pipeline 'mine' puts ${alone} on `)))
    }
  })

  test('routed experts cannot be on the GPU alone', () => {
    const pipeline = definePipeline({ name: 'mine', executor: 'wasm', stages: { routedExperts: 'cuda' } })
    expect(() => planOf(pipeline)).toThrow(failure('ERR_PIPELINE_INVALID', /puts routedExperts on 'cuda'/))
  })

  test('overlap is the pipeline’s, unless an option says otherwise', () => {
    const serial = definePipeline({ name: 'serial', executor: 'cuda', overlap: false })
    expect(
      [planOf(hybrid), planOf(serial), planOf(hybrid, { overlap: false }), planOf(serial, { overlap: true })].map(
        ({ pipeline }) => pipeline.overlap,
      ),
    ).toEqual([true, false, false, true])
  })
})

describe('gpuExpertLayers', () => {
  test.each([
    [0, []],
    [1, [5]],
    [3, [3, 4, 5]],
    [5, [1, 2, 3, 4, 5]],
    [99, [1, 2, 3, 4, 5]],
  ])('%i: the last ones', (gpuExpertLayers, cuda) => {
    const plan = planOf(hybrid, { gpuExpertLayers })
    expect(expertsOf(plan)).toEqual({ cuda, wasm: [1, 2, 3, 4, 5].filter((layer) => !cuda.includes(layer)) })
    expect(plan.wasm === undefined).toBe(cuda.length === 5)
  })

  test.each([-1, 1.5, Number.NaN])('%d is refused', (gpuExpertLayers) => {
    expect(() => planOf(hybrid, { gpuExpertLayers })).toThrow(failure('ERR_ARGUMENT', /gpuExpertLayers/))
  })

  test('is for pipelines whose experts are on the pool beside a GPU', () => {
    for (const pipeline of [cpu, gpu])
      expect(() => planOf(pipeline, { gpuExpertLayers: 1 })).toThrow(failure('ERR_ARGUMENT', /--gpu-layers/))
  })
})

describe('overrides', () => {
  const override = (pattern: string, executor: 'wasm' | 'cuda') => ({ pattern, executor })

  test('move layers, the first that matches decides', () => {
    const both = [override('blk\\.(2|3)\\.ffn_.*_exps', 'cuda'), override('ffn_(up|gate|down)_exps', 'wasm')]
    expect(expertsOf(planOf(hybrid, { overrides: both })).cuda).toEqual([2, 3])
    expect(expertsOf(planOf(gpu, { overrides: both })).cuda).toEqual([2, 3])
    expect(expertsOf(planOf(gpu, { overrides: both.toReversed() })).cuda).toEqual([])
    expect(expertsOf(planOf(hybrid, { overrides: [override('.', 'cuda')] })).wasm).toEqual([])
  })

  test('go before gpuExpertLayers', () => {
    const overrides = [override('blk\\.5\\..*_exps', 'wasm'), override('blk\\.1\\..*_exps', 'cuda')]
    expect(expertsOf(planOf(hybrid, { overrides, gpuExpertLayers: 2 })).cuda).toEqual([1, 4])
  })

  test('of tensors that agree with the pipeline change nothing', () => {
    expect(expertsOf(planOf(cpu, { overrides: [override('.', 'wasm')] })).wasm).toEqual([1, 2, 3, 4, 5])
  })

  test.each([
    [hybrid, 'blk.3.ffn_up_exps.weight', 'cuda', /blk\.3\.ffn_up_exps\.weight is put on 'cuda'.* of layer 3 must be together/],
    [gpu, 'ffn_down_exps', 'wasm', /blk\.1\.ffn_down_exps\.weight is put on 'wasm'.* of layer 1 must be together/],
    [hybrid, 'blk.2.attn_q', 'wasm', /blk\.2\.attn_q\.weight is put on 'wasm'.*only routed experts may differ/],
    [gpu, 'blk.0.ffn_up.weight', 'wasm', /blk\.0\.ffn_up\.weight /],
    [gpu, 'ffn_down_shexp', 'wasm', /blk\.1\.ffn_down_shexp\.weight /],
    [gpu, '^output.weight', 'wasm', /^output\.weight /],
    [gpu, 'exp_probs_b', 'wasm', /blk\.1\.exp_probs_b/],
    [cpu, '_exps', 'cuda', /blk\.1\.ffn_gate_exps\.weight is put on 'cuda'/],
    [cpu, 'token_embd', 'cuda', /token_embd\.weight is put on 'cuda'/],
  ] as const)('of pipeline %o, %s=%s, cannot run', (pipeline, pattern, executor, message) => {
    expect(() => planOf(pipeline, { overrides: [override(pattern, executor)] })).toThrow(failure('ERR_PIPELINE_INVALID', message))
  })

  test('a merged tensor is one name for two matrices', () => {
    const merged = gpuModel({ layers: 2, isMerged: true })
    const plan = (pattern: string): Plan => makePlan(merged, GPU_MACHINE, hybrid, { ...LIMITS, overrides: [override(pattern, 'cuda')] })
    expect(plan('_exps').wasm).toBeUndefined()
    expect(() => plan('gate_up_exps')).toThrow(failure('ERR_PIPELINE_INVALID', /ffn_down_exps\.weight is put on 'wasm'/))
  })

  test.each([
    ['ffn_(', /not a regular expression/],
    ['', /1 to 200 characters/],
    ['a'.repeat(201), /1 to 200 characters/],
    ['(\\w+)+!', /repeats a group/],
    ['blk.6.', /matches the name of no tensor/],
    ['rope_freqs', /matches the name of no tensor/],
  ])('%s is no pattern', (pattern, message) => {
    expect(() => planOf(hybrid, { overrides: [override(pattern, 'cuda')] })).toThrow(failure('ERR_ARGUMENT', message))
  })

  test('an executor that there is none of', () => {
    expect(() => planOf(hybrid, { overrides: [override('_exps', 'abacus' as 'cuda')] })).toThrow(failure('ERR_ARGUMENT', /abacus/))
  })
})

describe('gpuBytes', () => {
  const bytesOf = (plan: Plan): number => plan.devices.find(({ id }) => id === 'cuda:0')!.bytes
  const least = bytesOf(planOf(hybrid))

  test('takes as many layers as fit, from the last on', () => {
    const sizes = [1, 2, 3, 4, 5].map((gpuExpertLayers) => bytesOf(planOf(hybrid, { gpuExpertLayers })))
    expect(expertsOf(planOf(hybrid, { gpuBytes: least })).cuda).toEqual([])
    for (const [index, bytes] of sizes.entries()) {
      const layers = [1, 2, 3, 4, 5].slice(-index - 1)
      expect(expertsOf(planOf(hybrid, { gpuBytes: bytes })).cuda).toEqual(layers)
      expect(expertsOf(planOf(hybrid, { gpuBytes: bytes - 1 })).cuda).toEqual(layers.slice(1))
    }
    expect(planOf(hybrid, { gpuBytes: sizes.at(-1)! }).wasm).toBeUndefined()
  })

  test('never is more than the budget, and no layer that is left would fit', () => {
    const mixed = gpuModel({ layers: 6, expertFormat: 'Q4_0', oddDownFormat: 'BF16', vocabulary: 300 })
    const plan = (options: PlacementOptions): Plan => makePlan(mixed, GPU_MACHINE, hybrid, { ...LIMITS, ...options })
    const first = bytesOf(plan({}))
    const last = bytesOf(plan({ gpuExpertLayers: 5 }))
    for (let step = 0; step <= 20; step++) {
      const gpuBytes = Math.floor(first + ((last - first) * step) / 20)
      const made = plan({ gpuBytes })
      expect(bytesOf(made)).toBeLessThanOrEqual(gpuBytes)
      const { cuda, wasm } = expertsOf(made)
      for (const layer of wasm) {
        const overrides = [...cuda, layer].map((each) => ({ pattern: `blk\\.${each}\\..*_exps`, executor: 'cuda' as const }))
        expect(bytesOf(plan({ overrides }))).toBeGreaterThan(gpuBytes)
      }
    }
  })

  test('leaves alone what overrides and gpuExpertLayers say', () => {
    const overrides = [{ pattern: 'blk\\.5\\..*_exps', executor: 'wasm' as const }]
    expect(expertsOf(planOf(hybrid, { gpuBytes: 2 ** 40, overrides })).wasm).toEqual([5])
    expect(expertsOf(planOf(hybrid, { gpuBytes: 2 ** 40, gpuExpertLayers: 2 })).cuda).toEqual([4, 5])
  })

  test('that does not hold what must be there says how much is missing', () => {
    const missing = /needs .* GiB \(weights .*, KV cache .*, buffers .*\), .* GiB more than the .* GiB it may take: .*lower the context/
    expect(() => planOf(hybrid, { gpuBytes: least - 1 })).toThrow(failure('ERR_MEMORY', missing))
    expect(() => planOf(gpu, { gpuBytes: least })).toThrow(failure('ERR_MEMORY', /put fewer layers' experts there/))
    expect(() => planOf(hybrid, { gpuBytes: least, gpuExpertLayers: 1 })).toThrow(failure('ERR_MEMORY', missing))
  })

  test.each([0, -1, 1.5, Number.NaN])('%d is refused', (gpuBytes) => {
    expect(() => planOf(hybrid, { gpuBytes })).toThrow(failure('ERR_ARGUMENT', /gpuBytes/))
  })

  test('is for pipelines with a GPU', () => {
    expect(() => planOf(cpu, { gpuBytes: 2 ** 30 })).toThrow(failure('ERR_ARGUMENT', /--gpu-memory/))
  })

  test('plans for a GPU that is not there, which then cannot be loaded', () => {
    const plan = makePlan(model, MACHINE, hybrid, { ...LIMITS, gpuBytes: 2 ** 40 })
    expect(plan.cuda!.device).toBe(0)
    expect(() => checkMemory(plan, MACHINE)).toThrow(failure('ERR_DEVICE_ABSENT', /no library: none was built/))
  })
})
