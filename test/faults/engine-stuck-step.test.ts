/** A step that never ends: the engine can be closed all the same, and the call that waits for the step fails. */
import { expect, test } from 'vitest'
import { Engine, type EngineExecutor } from '../../src/engine/engine.ts'
import { TandemError } from '../../src/errors.ts'
import { codeOf, executorParts, microModel, SMALL } from '../fixtures/engine-micro.ts'

test('engine.close ends what waits for a stuck step', async () => {
  await using model = await microModel()
  const planned = await executorParts(model.path, SMALL)
  const stuck = Promise.withResolvers<boolean>()
  const cancelled: number[] = []
  const executor: EngineExecutor = {
    failure: undefined,
    traceRows: [],
    tryClaim: () => ({ sequence: 1, words: new Int32Array(new SharedArrayBuffer(planned.plan.step.bytes)) }),
    publish: () => undefined,
    cancel: ({ sequence }) => void cancelled.push(sequence),
    whenCompleted: () => stuck.promise,
    logits: () => {
      throw new Error('there are none')
    },
    hidden: () => {
      throw new Error('there are none')
    },
    close: async () => stuck.reject(new TandemError('ERR_CLOSED', 'closed')),
  }
  const engine = new Engine({ ...planned, executor })
  const session = engine.session()
  const pending = codeOf(session.sync([1, 2, 3]))
  await new Promise((resolve) => setTimeout(resolve, 10))
  await engine.close()
  expect(await pending).toBe('ERR_CLOSED')
  expect(cancelled).toEqual([1])
  await session.close()
})
