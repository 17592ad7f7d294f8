/** Programs as a list of stages for JSON, and as a table with layers that are alike on one line. Pure. */
import { formatById, FORMATS } from '../abi/formats.ts'
import type { PlannedModel } from '../engine/load-model.ts'
import { expertsOf, matricesOf, packedBytesOf } from '../pipeline/call-weights.ts'
import type { CudaCall, StageCall } from '../pipeline/program.ts'
import type { ExecutorName } from '../placement/stages.ts'
import type { CudaPlan, DeviceFeedForward, DeviceMatrix } from '../placement/types.ts'
import { bytesText } from './text.ts'

/** One call of a program. */
export interface StageRow {
  /**
   * A stage's name; `transfer` where activations cross from one arena to another, `publish` and `awaitRouted` where the GPU hands a layer's experts
   * to the pool and waits for them.
   */
  readonly stage: StageCall['stage'] | CudaCall['stage']
  /** Null for what belongs to no layer. */
  readonly layer: number | null
  /** Null on a GPU. */
  readonly arena: number | null
  readonly executor: ExecutorName
  /** Formats of the weight matrices, without repeats. */
  readonly formats: readonly string[]
  /** Weight matrices as the executor keeps them, bytes. Norms and biases are not counted. */
  readonly bytes: number
}

const unique = (names: readonly string[]): string[] => [...new Set(names)]

function wasmRow(call: StageCall): StageRow {
  const matrices = matricesOf(call)
  return {
    stage: call.stage,
    layer: 'layer' in call ? call.layer : null,
    arena: call.arena,
    executor: 'wasm',
    formats: unique(matrices.map(({ format }) => formatById(format)?.name ?? String(format))),
    bytes: packedBytesOf(matrices) * expertsOf(call),
  }
}

/** The weight matrices of a call on the GPU, all experts. */
function deviceMatrices(cuda: CudaPlan, { stage, layer: index }: CudaCall): readonly DeviceMatrix[] {
  const ffn = (each: DeviceFeedForward | undefined): DeviceMatrix[] => (each ? [each.gate, each.up, each.down] : [])
  if (stage === 'user') return []
  if (stage === 'embed') return [cuda.embedding]
  if (stage === 'head') return [cuda.head]
  const layer = cuda.layers[index]!
  const { q, k, v, output } = layer.attention
  if (stage === 'attention') return [q, k, v, output]
  if (stage === 'router') return layer.router ? [layer.router.gate] : []
  if (stage === 'denseFfn') return ffn(layer.dense)
  if (stage === 'sharedExperts') return ffn(layer.shared)
  return stage === 'routedExperts' ? ffn(layer.routed) : []
}

function deviceRow(cuda: CudaPlan, call: CudaCall): StageRow {
  const matrices = deviceMatrices(cuda, call)
  return {
    stage: call.stage,
    layer: call.layer < 0 ? null : call.layer,
    arena: null,
    executor: 'cuda',
    formats: unique(matrices.map(({ matrix }) => FORMATS[matrix.tensor.format].name)),
    bytes: matrices.reduce((sum, { bytes }) => sum + bytes, 0),
  }
}

/** Every call of the programs, in order; what the pool does for the GPU stands behind the call that publishes it. */
export function stagesOf({ plan, programs }: Pick<PlannedModel, 'plan' | 'programs'>): StageRow[] {
  const pool = programs.wasm?.calls.map(wasmRow) ?? []
  const { cuda } = plan
  if (!cuda || !programs.cuda) return pool
  const entries = new Map(programs.wasm?.entries?.map((entry) => [entry.layer, entry]))
  return programs.cuda.calls.flatMap((call) => {
    const entry = call.stage === 'publish' ? entries.get(call.layer) : undefined
    const handed = entry ? pool.slice(entry.begin, entry.end) : []
    // the pool's copies between arenas belong to the layer that they are for
    return [deviceRow(cuda, call), ...handed.map((row) => ({ ...row, layer: call.layer }))]
  })
}

interface Line {
  readonly stage: string
  readonly executor: string
  readonly formats: string
  calls: number
  bytes: number
  /** Without any on a GPU. */
  arenas: readonly number[]
}

interface Block {
  readonly first: number | null
  last: number | null
  /** What makes two layers alike. */
  readonly signature: string
  readonly lines: readonly Line[]
}

/** A layer's lines: calls of one stage on one line, transfers left out, since where they fall is the arenas' affair. */
function linesOf(rows: readonly StageRow[]): Line[] {
  const lines = new Map<string, Line>()
  for (const { stage, executor, formats, bytes, arena } of rows) {
    const arenas = arena === null ? [] : [arena]
    const line = lines.get(stage)
    if (line) {
      line.calls++
      line.bytes += bytes
      line.arenas = [...line.arenas, ...arenas]
    } else lines.set(stage, { stage, executor, formats: formats.join(' '), calls: 1, bytes, arenas })
  }
  return [...lines.values()]
}

/** Consecutive layers that are alike become one block. */
function collapse(rows: readonly StageRow[]): Block[] {
  const blocks: Block[] = []
  for (let begin = 0, end = 0; begin < rows.length; begin = end) {
    const { layer } = rows[begin]!
    while (end < rows.length && rows[end]!.layer === layer) end++
    const lines = linesOf(rows.slice(begin, end))
    const signature =
      layer === null ? `${begin}` : JSON.stringify(lines.map(({ stage, executor, formats, bytes }) => [stage, executor, formats, bytes]))
    const previous = blocks.at(-1)
    if (previous?.signature !== signature) {
      blocks.push({ first: layer, last: layer, signature, lines })
      continue
    }
    previous.last = layer
    for (const [index, line] of previous.lines.entries()) line.arenas = [...line.arenas, ...lines[index]!.arenas]
  }
  return blocks
}

const range = (first: number, last: number): string => (first === last ? `${first}` : `${first}-${last}`)
const arenaRange = (arenas: readonly number[]): string => (arenas.length > 0 ? range(Math.min(...arenas), Math.max(...arenas)) : '')

/** Rows of the table, heading included; bytes are those of one layer. */
export function blocksOf(rows: readonly StageRow[]): string[][] {
  const transfers = rows.filter(({ stage }) => stage === 'transfer').length
  const body = collapse(rows.filter(({ stage }) => stage !== 'transfer')).flatMap(({ first, last, lines }) =>
    lines.map(({ stage, executor, formats, bytes, arenas }, index) => {
      const layers = first === null || last === null || index > 0 ? '' : range(first, last)
      return [layers, stage, executor, arenaRange(arenas), bytes > 0 ? bytesText(bytes).padStart(10) : '', formats]
    }),
  )
  const footer = transfers > 0 ? [['', `transfer, ${transfers} between arenas`]] : []
  return [['layers', 'stage', 'executor', 'arena', 'per layer'.padStart(10), 'formats'], ...body, ...footer]
}
