/** Compiles a plan into the programs of its executors. Pure. */
import { GATING } from '../abi/kernels.ts'
import type { Hyperparameters, Model } from '../model/types.ts'
import { resultsLayout } from '../placement/results-layout.ts'
import type { CudaPlan, Plan, WasmPlan } from '../placement/types.ts'
import { cudaCalls } from './compile-cuda.ts'
import { expertCalls, modelCalls } from './compile-wasm.ts'
import { deviceUserCalls, poolUserCalls, programUserStages } from './compile-user.ts'
import type { CudaProgram, Program, Programs, ProgramShape } from './program.ts'

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
  const { ubatch, outputs, activations } = limits
  const common = { shape: programShape(model.hyper), step, ubatch, outputs, arena: wasm.arena }
  if (wasm.holds === 'experts') return { ...common, ...expertCalls(model, wasm, activations) }
  const { userStages } = pipeline
  // functions of the user see every token of every layer
  const calls = modelCalls(model, wasm, activations, userStages !== undefined)
  if (!userStages) return { ...common, calls }
  return {
    ...common,
    calls: poolUserCalls(calls, userStages, pipeline.name),
    userStages: programUserStages(userStages, model.hyper, wasm.arena, step),
  }
}

function cudaProgram(model: Model, { step, limits, pipeline }: Plan, cuda: CudaPlan): CudaProgram {
  const { ubatch, outputs } = limits
  const { userStages } = pipeline
  const results = resultsLayout(cuda.shape, step, userStages !== undefined)
  const common = { shape: programShape(model.hyper), step, results }
  const calls = cudaCalls(cuda.layers, pipeline.overlap)
  if (!userStages) return { ...common, calls }
  return {
    ...common,
    calls: deviceUserCalls(calls, userStages, pipeline.name),
    user: {
      shape: common.shape,
      step,
      ubatch,
      outputs,
      arena: { step: results.step },
      userStages: programUserStages(userStages, model.hyper, results, step),
    },
  }
}

/** The programs of a plan. Throws `ERR_FORMAT_UNSUPPORTED`, and `ERR_PIPELINE_INVALID` for user stages that the model has no place for. */
export function compile(model: Model, plan: Plan): Programs {
  const { wasm, cuda } = plan
  return {
    ...(wasm ? { wasm: wasmProgram(model, plan, wasm) } : {}),
    ...(cuda ? { cuda: cudaProgram(model, plan, cuda) } : {}),
  }
}
