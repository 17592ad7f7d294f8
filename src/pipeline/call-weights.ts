/** What a call of a program reads: its weight matrices. Pure. */
import type { FeedForwardCall, MatrixCall, StageCall } from './program.ts'

const ffnMatrices = ({ gate, up, down }: FeedForwardCall): MatrixCall[] => [gate, up, down]

/** The weight matrices of a call; for routed experts those of one expert. Norms and biases are not counted. */
export function matricesOf(call: StageCall): readonly MatrixCall[] {
  if (call.stage === 'attention') return [call.q, call.k, call.v, call.output]
  if (call.stage === 'router') return [call.gate]
  if (!('weights' in call)) return []
  return 'gate' in call.weights ? ffnMatrices(call.weights) : [call.weights]
}

/** Experts whose matrices a call has. */
export function expertsOf(call: StageCall): number {
  return call.stage === 'routedExperts' ? call.expertEnd - call.expertBegin : 1
}

/** Packed bytes of some matrices, one expert of each. */
export const packedBytesOf = (matrices: readonly MatrixCall[]): number => matrices.reduce((sum, { expertBytes }) => sum + expertBytes, 0)
