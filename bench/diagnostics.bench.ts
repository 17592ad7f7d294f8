/** What the logs and channels cost a step and a generation while nobody wants to know; and a subscriber of every step, to compare. */
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { StepWatch } from '../src/engine/step-watch.ts'
import { watched } from '../src/engine/generate-watch.ts'
import type { Delta } from '../src/engine/generate.ts'
import { type Case, expect, isWanted, type Settings, type Suite } from './support/suite.ts'

const TIMES = 10_000

/** What the step loop does for a step. */
function steps(watch: StepWatch): number {
  let seen = 0
  for (let step = 0; step < TIMES; step++) {
    const begun = watch.begin()
    if (begun === undefined) continue
    watch.end({ step, tokens: 1, sequences: 1, outputs: 1, ms: performance.now() - begun, isDone: true })
    seen++
  }
  return seen
}

async function* none(): AsyncGenerator<Delta, void, undefined> {
  yield* []
}

function* cases(settings: Settings): Generator<Case> {
  const watch = new StepWatch()
  const work = [{ amount: TIMES, unit: 'us' }] as const
  if (isWanted(settings, 'diagnostics', 'steps, nobody listens')) {
    const check = (): void => expect(steps(watch) === 0, 'nobody listens')
    yield { name: 'steps, nobody listens', work, check, run: () => void steps(watch) }
  }
  if (isWanted(settings, 'diagnostics', 'generations, nobody listens')) {
    const deltas = none()
    const check = (): void => expect(watched(deltas, 'x') === deltas, 'nobody listens')
    const run = (): void => {
      for (let time = 0; time < TIMES; time++) watched(deltas, 'x')
    }
    yield { name: 'generations, nobody listens', work, check, run }
  }
  if (isWanted(settings, 'diagnostics', 'steps, a subscriber')) {
    let heard = 0
    const listen = (): void => void heard++
    subscribe('tandem:step', listen)
    const check = (): void => expect(steps(watch) === TIMES && heard >= TIMES, 'a message for each')
    yield { name: 'steps, a subscriber', work, check, run: () => void steps(watch) }
    unsubscribe('tandem:step', listen)
  }
}

export const suite: Suite = { name: 'diagnostics', about: 'a step, a generation', bothModes: false, cases }
