/** route and group. */
import { beforeEach, describe, expect, test } from 'vitest'
import { GATING, KERNEL_STATUS } from '../../src/abi/kernels.ts'
import { floats, HOSTS, integers, upload, type KernelHost } from './kernel-host.ts'
import { random, randomRows } from './reference.ts'

interface Routing {
  readonly experts: number
  readonly used: number
  readonly gating: number
  readonly bias?: Float32Array
  readonly normalize: boolean
  readonly scale: number
}

/** The algorithm in float64, one token. */
function reference(logits: Float32Array, { experts, used, gating, bias, normalize, scale }: Routing): { ids: number[]; weights: number[] } {
  const most = Math.max(...logits)
  const total = logits.reduce((sum, logit) => sum + Math.exp(logit - most), 0)
  const gates = Array.from(logits, (logit) => (gating === GATING.sigmoid ? 1 / (1 + Math.exp(-logit)) : Math.exp(logit - most) / total))
  const rank = gates.map((gate, e) => gate + (bias?.[e] ?? 0))
  const ids = Array.from({ length: experts }, (_, e) => e)
    .sort((a, b) => rank[b]! - rank[a]! || a - b)
    .slice(0, used)
    .sort((a, b) => a - b)
  const sum = Math.max(
    ids.reduce((s, e) => s + gates[e]!, 0),
    2 ** -14,
  )
  return { ids, weights: ids.map((e) => (normalize ? gates[e]! / sum : gates[e]!) * (scale || 1)) }
}

function run(
  host: KernelHost,
  logits: Float32Array,
  routing: Routing,
  ranges?: readonly (readonly [number, number])[],
): [Int32Array, Float32Array] {
  const { experts, used, gating, bias, normalize, scale } = routing
  const tokens = logits.length / experts
  const ids = host.allocate(tokens * used * 4)
  const weights = host.allocate(tokens * used * 4)
  const [from, shift] = [upload(host, logits), bias ? upload(host, bias) : 0]
  for (const [begin, end] of ranges ?? [[0, tokens]]) {
    expect(host.call('route', ids, weights, from, shift, gating, Number(normalize), scale, experts, used, begin, end)).toBe(
      KERNEL_STATUS.ok,
    )
  }
  return [integers(host, ids, tokens * used), floats(host, weights, tokens * used)]
}

describe.each(HOSTS)('route on $name', (host) => {
  beforeEach(() => host.reset())

  const cases: readonly Routing[] = [
    { experts: 128, used: 8, gating: GATING.sigmoid, bias: randomRows(128, 9, 0.1), normalize: true, scale: 2.5 },
    { experts: 160, used: 8, gating: GATING.sigmoid, normalize: false, scale: 0 },
    { experts: 64, used: 6, gating: GATING.softmax, normalize: false, scale: 1 },
    { experts: 30, used: 4, gating: GATING.softmax, bias: randomRows(30, 8, 0.01), normalize: true, scale: 1.5 },
    { experts: 5, used: 5, gating: GATING.softmax, normalize: true, scale: 0 },
    { experts: 512, used: 64, gating: GATING.sigmoid, normalize: true, scale: 1 },
    { experts: 1, used: 1, gating: GATING.softmax, normalize: false, scale: 0 },
  ]
  test.each(cases)('$used of $experts, gating $gating, normalize $normalize, scale $scale', (routing) => {
    const tokens = 23
    const logits = randomRows(tokens * routing.experts, 4, 3)
    const [ids, weights] = run(host, logits, routing)
    for (let t = 0; t < tokens; t++) {
      const expected = reference(logits.subarray(t * routing.experts, (t + 1) * routing.experts), routing)
      expect(Array.from(ids.subarray(t * routing.used, (t + 1) * routing.used))).toEqual(expected.ids)
      expected.weights.forEach((weight, i) => expect(Math.abs(weights[t * routing.used + i]! - weight)).toBeLessThan(1e-6 * weight + 1e-12))
    }
    expect(
      run(host, logits, routing, [
        [20, 23],
        [0, 20],
      ]),
    ).toEqual([ids, weights])
  })

  test('ties go to the lower id, also through the bias', () => {
    const routing = { experts: 9, used: 3, gating: GATING.sigmoid, normalize: false, scale: 0 }
    const [ids] = run(host, Float32Array.of(0, 1, 1, 0, 1, 1, 0, 0, 1, ...Array.from({ length: 9 }, () => 2)), routing)
    expect(Array.from(ids)).toEqual([1, 2, 4, 0, 1, 2])
    const [biased] = run(host, new Float32Array(9), { ...routing, bias: Float32Array.of(0, 0, 1, 0, 1, 0, 1, 0, 1) })
    expect(Array.from(biased)).toEqual([2, 4, 6])
  })

  test('a vanishing sum of weights is clamped', () => {
    const routing = { experts: 8, used: 2, gating: GATING.sigmoid, normalize: true, scale: 0 }
    const logits = new Float32Array(8).fill(-30)
    const [, weights] = run(host, logits, routing)
    reference(logits, routing).weights.forEach((weight, i) => expect(Math.abs(weights[i]! - weight)).toBeLessThan(1e-6 * weight))
  })

  test('NaN logits give valid ids and NaN weights', () => {
    for (const gating of [GATING.sigmoid, GATING.softmax]) {
      const logits = randomRows(16, 5)
      logits.fill(NaN)
      const [ids, weights] = run(host, logits, { experts: 16, used: 4, gating, normalize: true, scale: 1 })
      expect(Array.from(ids)).toEqual([0, 1, 2, 3])
      expect(weights.every(Number.isNaN)).toBe(true)
    }
  })

  test('arguments that cannot be are refused', () => {
    const call = (gating: number, experts: number, used: number, begin = 0, end = 0): number =>
      host.call('route', 0, 0, 0, 0, gating, 0, 1, experts, used, begin, end)
    expect(call(3, 8, 2)).toBe(KERNEL_STATUS.format)
    expect(call(0, 8, 2)).toBe(KERNEL_STATUS.format)
    for (const [experts, used] of [
      [8, 0],
      [8, 9],
      [0, 1],
      [100, 65],
    ] as const)
      expect(call(GATING.softmax, experts, used)).toBe(KERNEL_STATUS.shape)
    expect(call(GATING.softmax, 8, 2, 2, 1)).toBe(KERNEL_STATUS.shape)
  })
})

describe.each(HOSTS)('group on $name', (host) => {
  beforeEach(() => host.reset())

  test.each([
    [128, 8, 50],
    [16, 4, 1],
    [3, 3, 20],
    [7, 1, 0],
    [64, 6, 513],
  ])('%i experts, %i used, %i tokens', (experts, used, tokens) => {
    const next = random(7)
    const choose = (): number[] => {
      const shuffled = Array.from({ length: experts }, (_, e) => [next(), e] as const).sort((a, b) => a[0] - b[0])
      return shuffled
        .slice(0, used)
        .map(([, e]) => e)
        .sort((a, b) => a - b)
    }
    const ids = Int32Array.from(Array.from({ length: tokens }, choose).flat())
    const weights = randomRows(tokens * used, 3)
    const offsets = host.allocate((experts + 1) * 4)
    const [token, weight] = [host.allocate(tokens * used * 4), host.allocate(tokens * used * 4)]
    expect(host.call('group', offsets, token, weight, upload(host, ids), upload(host, weights), experts, used, tokens)).toBe(
      KERNEL_STATUS.ok,
    )
    const pairs = Array.from(ids, (e, p) => ({ e, t: Math.floor(p / used), w: weights[p]! }))
    const sorted = Array.from({ length: experts }, (_, e) => pairs.filter((pair) => pair.e === e))
    const starts = [0]
    for (const list of sorted) starts.push(starts.at(-1)! + list.length)
    expect(Array.from(integers(host, offsets, experts + 1))).toEqual(starts)
    expect(Array.from(integers(host, token, tokens * used))).toEqual(sorted.flat().map(({ t }) => t))
    expect(Array.from(floats(host, weight, tokens * used))).toEqual(sorted.flat().map(({ w }) => w))
  })

  test('ids outside the experts, and sizes that cannot be, are refused', () => {
    const [offsets, pairs] = [host.allocate(64), host.allocate(64)]
    const call = (ids: Int32Array, experts: number, used: number, tokens: number): number =>
      host.call('group', offsets, pairs, pairs, upload(host, ids), pairs, experts, used, tokens)
    expect(call(Int32Array.of(0, 4), 4, 2, 1)).toBe(KERNEL_STATUS.shape)
    expect(call(Int32Array.of(-1, 3), 4, 2, 1)).toBe(KERNEL_STATUS.shape)
    expect(call(Int32Array.of(0, 3), 0, 2, 1)).toBe(KERNEL_STATUS.shape)
    expect(call(Int32Array.of(0, 3), 4, 0, 1)).toBe(KERNEL_STATUS.shape)
    expect(call(Int32Array.of(0, 3), 4, 2, -1)).toBe(KERNEL_STATUS.shape)
  })
})
