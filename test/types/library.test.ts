/** What the package's types say: checked by `npm run types`, and by this test's being there. */
import { expect, expectTypeOf, test } from 'vitest'
import {
  type Answer,
  type BatchLineMessage,
  type BatchSummary,
  definePipeline,
  type Delta,
  type EmbedOptions,
  type Engine,
  type ErrorCode,
  type FailureMessage,
  type Finish,
  type GenerateMessage,
  loadModel,
  type LoadMessage,
  type LoadOptions,
  type PipelineDefinition,
  type PipelineOptions,
  type PreemptionMessage,
  type Score,
  type Session,
  type StageName,
  type StepMessage,
  TandemError,
  type UserFunction,
  type UserStageOptions,
  type UserStageResult,
  type UserStageResults,
  type UserStageView,
} from '../../src/index.ts'

test('loading, sessions and answers', () => {
  expectTypeOf(loadModel).parameters.toEqualTypeOf<[path: string, options?: LoadOptions | undefined]>()
  expectTypeOf(loadModel).returns.resolves.toEqualTypeOf<Engine>()
  expectTypeOf<Engine['session']>().returns.toEqualTypeOf<Session>()
  expectTypeOf<Engine['generate']>().returns.resolves.toEqualTypeOf<Answer>()
  expectTypeOf<Session['generate']>().returns.toExtend<AsyncIterable<Delta>>()
  expectTypeOf<string>().toExtend<Parameters<Session['generate']>[0]>()
  expectTypeOf<Engine['batch']>().returns.resolves.toEqualTypeOf<BatchSummary>()
  expectTypeOf<Engine['embed']>().returns.resolves.toEqualTypeOf<Float32Array[]>()
  expectTypeOf<EmbedOptions['pooling']>().toEqualTypeOf<'mean' | 'last' | undefined>()
  expectTypeOf<Engine['score']>().returns.resolves.toEqualTypeOf<Score[]>()
  expectTypeOf<Engine>().toExtend<AsyncDisposable>()
  expectTypeOf<Session>().toExtend<AsyncDisposable>()
})

test('pipelines', () => {
  expectTypeOf(definePipeline).returns.toEqualTypeOf<PipelineDefinition>()
  expectTypeOf<{ name: string; executor: 'wasm' }>().toExtend<PipelineOptions>()
  expectTypeOf<{ name: string; executor: 'abacus' }>().not.toExtend<PipelineOptions>()
  expectTypeOf<{ name: string; executor: 'cuda'; stages: { routedExperts: 'wasm' } }>().toExtend<PipelineOptions>()
  expectTypeOf<keyof NonNullable<PipelineOptions['stages']>>().toEqualTypeOf<StageName>()
})

test('user stages stand before or after a stage, not both', () => {
  type Common = { name: string; module: URL }
  expectTypeOf<Common & { after: 'router' }>().toExtend<UserStageOptions>()
  expectTypeOf<Common & { before: 'head'; steer: true }>().toExtend<UserStageOptions>()
  expectTypeOf<Common>().not.toExtend<UserStageOptions>()
  expectTypeOf<Common & { before: 'embed' }>().not.toExtend<UserStageOptions>()
  expectTypeOf<Common & { after: 'tea' }>().not.toExtend<UserStageOptions>()
  expectTypeOf<Common & { before: 'head'; after: 'router' }>().not.toExtend<UserStageOptions>()
})

test('a view has what there is at its place', () => {
  type Keys<Point extends Parameters<typeof at>[0]> = Exclude<keyof UserStageView<Point>, 'tokens' | 'positions' | 'runs'>
  const at = (_point: 'after router' | 'after attention' | 'after head'): void => undefined
  expectTypeOf<Keys<'after router'>>().toEqualTypeOf<'expertIds' | 'expertWeights'>()
  expectTypeOf<Keys<'after attention'>>().toEqualTypeOf<'x'>()
  expectTypeOf<Keys<'after head'>>().toEqualTypeOf<'logits' | 'outputs'>()
  expectTypeOf<UserStageView<'after router'>['expertIds']>().toEqualTypeOf<Int32Array>()
  expectTypeOf<UserStageView<'after router'>['expertWeights']>().toEqualTypeOf<Float32Array>()
  const steer: UserFunction<'after head', void, { readonly bias: number }> = ({ logits }, { data, layer, shape }) => {
    expectTypeOf(data.bias).toEqualTypeOf<number>()
    expectTypeOf(layer).toEqualTypeOf<number | undefined>()
    logits[shape.vocabulary - 1] = data.bias
  }
  expectTypeOf(steer).returns.toEqualTypeOf<void>()
  at('after head')
})

test('results carry the type that the program gives them', () => {
  expectTypeOf<ReturnType<typeof results>>().toEqualTypeOf<UserStageResults<Int32Array>>()
  const results = (engine: Engine): UserStageResults<Int32Array> => engine.userStage<Int32Array>('experts')
  expectTypeOf<UserStageResults<number>['collect']>().returns.resolves.toEqualTypeOf<UserStageResult<number>[]>()
  expectTypeOf<UserStageResults<number>>().toExtend<AsyncIterable<UserStageResult<number>>>()
})

test('messages of the diagnostics channels', () => {
  expectTypeOf<GenerateMessage['finish']>().toEqualTypeOf<Finish | undefined>()
  expectTypeOf<LoadMessage['path']>().toEqualTypeOf<string>()
  expectTypeOf<FailureMessage['error']>().toEqualTypeOf<TandemError>()
  expectTypeOf<keyof StepMessage>().toEqualTypeOf<'step' | 'tokens' | 'sequences' | 'outputs' | 'ms' | 'isDone'>()
  expectTypeOf<keyof PreemptionMessage>().toEqualTypeOf<'tokens' | 'blocks' | 'preemptions'>()
  expectTypeOf<keyof BatchLineMessage>().toEqualTypeOf<'line' | 'id' | 'finish' | 'error'>()
})

test('errors', () => {
  const error: unknown = new TandemError('ERR_USER_STAGE', 'on purpose')
  expect(TandemError.is(error)).toBe(true)
  if (TandemError.is(error)) expectTypeOf(error.code).toEqualTypeOf<ErrorCode>()
})
