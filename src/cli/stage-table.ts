/** A program as a list of stages for JSON, and as a table with layers that are alike on one line. Pure. */
import { formatById } from '../abi/formats.ts'
import { expertsOf, matricesOf, packedBytesOf } from '../pipeline/call-weights.ts'
import type { Program, StageCall } from '../pipeline/program.ts'
import type { ExecutorName } from '../placement/stages.ts'
import type { Plan } from '../placement/types.ts'
import { bytesText } from './text.ts'

/** One call of the program. */
export interface StageRow {
  /** A stage's name, or `transfer` where activations cross from one arena to another. */
  readonly stage: StageCall['stage']
  /** Null for what belongs to no layer. */
  readonly layer: number | null
  readonly arena: number
  readonly executor: ExecutorName
  /** Formats of the weight matrices, without repeats. */
  readonly formats: readonly string[]
  /** Packed weight matrices, bytes. Norms and biases are not counted. */
  readonly bytes: number
}

/** Every call of the program, in order. */
export function stagesOf(program: Program, plan: Plan): StageRow[] {
  return program.calls.map((call) => {
    const matrices = matricesOf(call)
    return {
      stage: call.stage,
      layer: 'layer' in call ? call.layer : null,
      arena: call.arena,
      // a transfer feeds the routed experts, or whatever comes next in their arena
      executor: plan.pipeline.placement[call.stage === 'transfer' ? 'routedExperts' : call.stage],
      formats: [...new Set(matrices.map(({ format }) => formatById(format)?.name ?? String(format)))],
      bytes: packedBytesOf(matrices) * expertsOf(call),
    }
  })
}

interface Line {
  readonly stage: string
  readonly executor: string
  readonly formats: string
  calls: number
  bytes: number
  firstArena: number
  lastArena: number
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
    const line = lines.get(stage)
    if (line) {
      line.calls++
      line.bytes += bytes
      line.firstArena = Math.min(line.firstArena, arena)
      line.lastArena = Math.max(line.lastArena, arena)
    } else lines.set(stage, { stage, executor, formats: formats.join(' '), calls: 1, bytes, firstArena: arena, lastArena: arena })
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
    for (const [index, line] of previous.lines.entries()) {
      line.firstArena = Math.min(line.firstArena, lines[index]!.firstArena)
      line.lastArena = Math.max(line.lastArena, lines[index]!.lastArena)
    }
  }
  return blocks
}

const range = (first: number, last: number): string => (first === last ? `${first}` : `${first}-${last}`)

/** Rows of the table, heading included; bytes are those of one layer. */
export function blocksOf(rows: readonly StageRow[]): string[][] {
  const transfers = rows.filter(({ stage }) => stage === 'transfer').length
  const body = collapse(rows.filter(({ stage }) => stage !== 'transfer')).flatMap(({ first, last, lines }) =>
    lines.map(({ stage, executor, formats, bytes, firstArena, lastArena }, index) => {
      const layers = first === null || last === null || index > 0 ? '' : range(first, last)
      return [layers, stage, executor, range(firstArena, lastArena), bytes > 0 ? bytesText(bytes).padStart(10) : '', formats]
    }),
  )
  const footer = transfers > 0 ? [['', `transfer, ${transfers} between arenas`]] : []
  return [['layers', 'stage', 'executor', 'arena', 'per layer'.padStart(10), 'formats'], ...body, ...footer]
}
