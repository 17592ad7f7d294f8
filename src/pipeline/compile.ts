/** Compiles a plan into the programs of its executors. Pure. */
import { GATING } from '../abi/kernels.ts'
import type { Hyperparameters, Model } from '../model/types.ts'
import type { Plan, WasmPlan } from '../placement/types.ts'
import { cudaCalls } from './compile-cuda.ts'
import { expertCalls, modelCalls } from './compile-wasm.ts'
import { withUserStages } from './compile-user.ts'
import type { Program, Programs, ProgramShape } from './program.ts'

function ropeFrequencies(hyper: Hyperparameters): number[] {
  const factor = hyper.ropeScaling.type === 'linear' ? 1 / hyper.ropeScaling.factor : 1
  return Array.from({ length: hyper.rotary / 2 }, (_, pair) => factor * hyper.ropeBase ** ((-2 * pair) / hyper.rotary))
}

function programShape(hyper: Hyperparameters): ProgramShape {
  const { hidden, heads, kvHeads, headDim, rotary, epsilon, experts, expertsUsed, ffnExpert, vocabulary } = hyper
  const { normalizeWeights, weightsScale } = hyper
  return {
    hidden,
    heads,
    kvHeads,
    headDim,
    rotary,
    epsilon,
    experts,
    expertsUsed,
    ffnExpert,
    vocabulary,
    normalizeWeights,
    weightsScale,
    gating: GATING[hyper.gating],
    ropeFrequencies: ropeFrequencies(hyper),
  }
}

function wasmProgram(model: Model, { step, limits, pipeline }: Plan, wasm: WasmPlan): Program {
  const { ubatch, outputs } = limits
  const common = { shape: programShape(model.hyper), step, ubatch, outputs, arena: wasm.arena }
  if (wasm.holds === 'experts') return { ...common, ...expertCalls(model, wasm) }
  const calls = modelCalls(model, wasm)
  const { userStages } = pipeline
  return userStages
    ? { ...common, ...withUserStages(calls, userStages, pipeline.name, { hyper: model.hyper, arena: wasm.arena, step }) }
    : { ...common, calls }
}

/** The programs of a plan. Throws `ERR_FORMAT_UNSUPPORTED`, and `ERR_PIPELINE_INVALID` for user stages that the model has no place for. */
export function compile(model: Model, plan: Plan): Programs {
  const { pipeline, step, wasm, cuda } = plan
  return {
    ...(wasm ? { wasm: wasmProgram(model, plan, wasm) } : {}),
    ...(cuda ? { cuda: { shape: programShape(model.hyper), step, calls: cudaCalls(cuda.layers, pipeline.overlap) } } : {}),
  }
}
