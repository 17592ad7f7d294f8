/** What goes on a GPU: nothing overlaps, nothing is outside its region, and what is read is every tensor, once. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { FORMATS, type FormatName, rowBytes } from '../../../src/abi/formats.ts'
import type { Model } from '../../../src/model/types.ts'
import { checkDeviceFormat, DEVICE_FORMATS } from '../../../src/placement/device-limits.ts'
import { type DeviceLoad, deviceLoads, UPLOAD_BYTES } from '../../../src/placement/device-loads.ts'
import { planLoads } from '../../../src/placement/loads.ts'
import { makePlan } from '../../../src/placement/plan.ts'
import type { CudaPlan, DeviceFeedForward, DeviceMatrix, DeviceVector, Plan } from '../../../src/placement/types.ts'
import gpu from '../../../pipelines/gpu.ts'
import hybrid from '../../../pipelines/hybrid.ts'
import { GPU_MACHINE } from '../../fixtures/engine-models.ts'
import { gpuModel, gpuModels } from '../../fixtures/gpu-models.ts'

const LIMITS = { threads: 2, contextTokens: 64, ubatch: 4, sequences: 2 }

interface Region {
  readonly what: string
  readonly begin: number
  readonly end: number
}

const matrixRegion = ({ matrix, offset, bytes }: DeviceMatrix): Region => ({
  what: `${matrix.tensor.name} ${matrix.firstRow}`,
  begin: offset,
  end: offset + bytes,
})

const vectorRegion = ({ vector, offset }: DeviceVector): Region => ({
  what: vector.tensor.name,
  begin: offset,
  end: offset + vector.length * 4,
})

const ffnRegions = (ffn: DeviceFeedForward | undefined): Region[] => (ffn ? [ffn.gate, ffn.up, ffn.down].map(matrixRegion) : [])

/** Everything in the weight region. */
function weightRegions(cuda: CudaPlan): Region[] {
  const layers = cuda.layers.flatMap(({ attention, ffnNorm, dense, router, shared, routed }) => [
    ...Object.values(attention).map((placed) => ('vector' in placed ? vectorRegion(placed) : matrixRegion(placed))),
    vectorRegion(ffnNorm),
    ...(router ? [matrixRegion(router.gate)] : []),
    ...(router?.selectionBias ? [vectorRegion(router.selectionBias)] : []),
    ...[dense, shared, routed].flatMap(ffnRegions),
  ])
  const head = cuda.head === cuda.embedding ? [] : [matrixRegion(cuda.head)]
  return [matrixRegion(cuda.embedding), vectorRegion(cuda.outputNorm), ...head, ...layers]
}

function cacheRegions(model: Model, plan: Plan): Region[] {
  const bytes = plan.limits.kvTokens * model.hyper.kvHeads * model.hyper.headDim * 2
  return plan.cuda!.layers.flatMap(({ keyCache, valueCache }, index) => [
    { what: `keys ${index}`, begin: keyCache, end: keyCache + bytes },
    { what: `values ${index}`, begin: valueCache, end: valueCache + bytes },
  ])
}

function expectApart(regions: readonly Region[], bytes: number): void {
  const sorted = regions.toSorted((a, b) => a.begin - b.begin)
  for (const [index, { what, begin, end }] of sorted.entries()) {
    expect(begin % 256, what).toBe(0)
    expect(end, what).toBeLessThanOrEqual(sorted[index + 1]?.begin ?? bytes)
  }
}

/** Bytes of the file that loads read, as ranges by tensor that touch each other merged. */
function bytesRead(loads: readonly Pick<DeviceLoad, 'tensor' | 'fileOffset' | 'fileBytes'>[]): Map<string, [number, number][]> {
  const ranges = new Map<string, [number, number][]>()
  for (const { tensor, fileOffset, fileBytes } of loads.toSorted((a, b) => a.fileOffset - b.fileOffset)) {
    const list = ranges.get(tensor) ?? []
    const last = list.at(-1)
    if (last) expect(fileOffset, tensor).toBeGreaterThanOrEqual(last[1])
    if (last?.[1] === fileOffset) last[1] += fileBytes
    else list.push([fileOffset, fileOffset + fileBytes])
    ranges.set(tensor, list)
  }
  return ranges
}

const placements = fc.record({ model: gpuModels, pipeline: fc.constantFrom(gpu, hybrid), gpuExpertLayers: fc.integer({ min: 0, max: 5 }) })

/** Made once: models take longer to make than plans to check. */
const PLANS = fc.sample(placements, { seed: 11, numRuns: 60 }).map(({ model, pipeline, gpuExpertLayers }) => ({
  model,
  plan: makePlan(model, GPU_MACHINE, pipeline, { ...LIMITS, ...(pipeline === hybrid ? { gpuExpertLayers } : {}) }),
}))

function withPlans(check: (model: Model, plan: Plan) => void): void {
  for (const { model, plan } of PLANS) check(model, plan)
}

describe('on a GPU', () => {
  test('the plans of this test are for the GPU alone, for both, and with experts on both', () => {
    expect(PLANS.filter(({ plan }) => !plan.wasm).length).toBeGreaterThan(10)
    expect(PLANS.filter(({ plan }) => plan.wasm).length).toBeGreaterThan(10)
    expect(PLANS.filter(({ plan }) => plan.wasm && plan.cuda!.shape.deviceExperts).length).toBeGreaterThan(5)
  })

  test('no two things overlap, all are aligned and inside their region', () => {
    withPlans((model, plan) => {
      const { cuda } = plan
      expectApart(weightRegions(cuda!), cuda!.weightBytes)
      expectApart(cacheRegions(model, plan), cuda!.cacheBytes)
      expect([cuda!.weightBytes % 256, cuda!.cacheBytes % 256]).toEqual([0, 0])
    })
  })

  test('what is read, by the pool as well, is every tensor of the file, once', () => {
    withPlans((model, { wasm, cuda }) => {
      const read = bytesRead([...deviceLoads(cuda!), ...(wasm ? planLoads(wasm) : [])])
      const wanted = [...model.file.tensors.values()].map(({ name, offset, bytes }) => [name, [[offset, offset + bytes]]] as const)
      expect(new Map([...read].toSorted())).toEqual(new Map(wanted.toSorted()))
    })
  })

  test('what is written fills every matrix and vector, once, and nothing else', () => {
    withPlans((_, { cuda }) => {
      const loads = deviceLoads(cuda!).toSorted((a, b) => a.offset - b.offset)
      const regions = weightRegions(cuda!).toSorted((a, b) => a.begin - b.begin)
      let next = 0
      for (const { what, begin, end } of regions) {
        let at = begin
        while (at < end) {
          const load = loads[next++]!
          expect(load.offset, what).toBe(at)
          at += load.bytes
        }
        expect(at, what).toBe(end)
      }
      expect(next).toBe(loads.length)
    })
  })

  test('pieces are whole rows, small enough for the staging bytes', () => {
    const model = gpuModel({ vocabulary: 40_000, format: 'Q8_0' })
    const { cuda } = makePlan(model, GPU_MACHINE, gpu, LIMITS)
    const loads = deviceLoads({ ...cuda!, layers: [] })
    const embedding = loads.filter(({ tensor }) => tensor === 'token_embd.weight')
    expect(embedding).toHaveLength(1)
    const wide = gpuModel({ vocabulary: 70_000 })
    const pieces = deviceLoads(makePlan(wide, GPU_MACHINE, gpu, LIMITS).cuda!)
    expect(pieces.filter(({ tensor }) => tensor === 'token_embd.weight')).toHaveLength(5)
    for (const { fileBytes, bytes, rows, columns, format, isVector } of pieces) {
      expect(fileBytes).toBeLessThanOrEqual(UPLOAD_BYTES)
      const row = Object.values(FORMATS).find(({ id }) => id === format)!
      expect(fileBytes).toBe(rows * rowBytes(row, columns))
      expect(bytes).toBe(isVector ? columns * 4 : fileBytes)
    }
  })

  test('vectors become f32', () => {
    const { cuda } = makePlan(gpuModel(), GPU_MACHINE, gpu, LIMITS)
    const vectors = deviceLoads(cuda!).filter(({ isVector }) => isVector)
    expect(vectors.length).toBeGreaterThan(0)
    expect(vectors.every(({ tensor }) => /norm|bias|exp_probs/.test(tensor))).toBe(true)
  })

  test('experts of a merged tensor are copied expert by expert', () => {
    const model = gpuModel({ isMerged: true, expertFormat: 'Q4_0', experts: 3 })
    const { cuda } = makePlan(model, GPU_MACHINE, gpu, LIMITS)
    const { gate, up } = cuda!.layers[1]!.routed!
    expect([gate.expertBytes, gate.bytes]).toEqual([256 * 144, 3 * 256 * 144])
    const { offset: file } = gate.matrix.tensor
    const loads = deviceLoads(cuda!).filter(({ tensor }) => tensor === gate.matrix.tensor.name)
    const experts = [0, 1, 2]
    expect(loads.map(({ fileOffset, offset }) => [fileOffset - file, offset])).toEqual([
      ...experts.map((expert) => [expert * 2 * gate.expertBytes, gate.offset + expert * gate.expertBytes]),
      ...experts.map((expert) => [(expert * 2 + 1) * gate.expertBytes, up.offset + expert * up.expertBytes]),
    ])
  })

  test('a tied head is the embedding', () => {
    const { cuda } = makePlan(gpuModel({ isTied: true }), GPU_MACHINE, gpu, LIMITS)
    expect(cuda!.head).toBe(cuda!.embedding)
  })

  test('hand-offs name the entry and the arena of the layer’s first experts', () => {
    withPlans((model, { wasm, cuda }) => {
      cuda!.layers.forEach(({ handoff, routed, router }, layer) => {
        expect(Boolean(handoff) !== Boolean(routed)).toBe(Boolean(router))
        if (!handoff) return
        const placed = wasm!.layers[handoff.entry]!
        expect(placed.layer).toBe(layer)
        expect(placed.routed[0]!.gate.arena).toBe(handoff.arena)
        expect(handoff.activations).toEqual([FORMATS[model.layers[layer]!.routed!.gate.tensor.format].activation])
      })
      expect(cuda!.layers.filter(({ handoff }) => handoff)).toHaveLength(wasm?.layers.length ?? 0)
    })
  })

  test('what the plan says about bytes adds up', () => {
    withPlans((model, { cuda, wasm, devices, limits }) => {
      expect(devices.map(({ id }) => id)).toEqual([...(wasm ? ['wasm'] : []), 'cuda:0'])
      const device = devices.at(-1)!
      expect(device.bytes).toBe(device.weights + device.kvCache + device.buffers)
      expect([device.weights, device.kvCache, device.buffers]).toEqual([cuda!.weightBytes, cuda!.cacheBytes, cuda!.bufferBytes])
      expect(device.kvCache).toBe(2 * model.hyper.layers * limits.kvTokens * model.hyper.kvHeads * model.hyper.headDim * 2)
      for (const each of devices) expect(each.weights + each.kvCache + each.buffers).toBe(each.bytes)
    })
  })
})

describe('what a GPU cannot do is told when the model is planned:', () => {
  test('a format, by name', () => {
    const [format] = DEVICE_FORMATS
    const others = new Set<FormatName>([...DEVICE_FORMATS].filter((name) => name !== format))
    const { embedding } = gpuModel({ format: format! })
    expect(() => checkDeviceFormat(embedding)).not.toThrow()
    expect(() => checkDeviceFormat(embedding, others)).toThrow(
      expect.objectContaining({
        code: 'ERR_FORMAT_UNSUPPORTED',
        message: expect.stringMatching(`token_embd.weight is in ${format}, .*'cuda'`),
      }),
    )
  })

  test('a shape', () => {
    expect(() => makePlan(gpuModel({ headDim: 16 }), GPU_MACHINE, gpu, LIMITS)).toThrow(
      expect.objectContaining({ code: 'ERR_PIPELINE_INVALID', message: expect.stringContaining('its head size, 16,') }),
    )
  })
})
