/** The scheduler: steps within their limits, streams before prompts, and nobody waits for ever. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { type Outputs, type Pending, type Pick, schedule, type StepLimits } from '../../../src/engine/scheduler.ts'

const pendings: fc.Arbitrary<Pending> = fc.record({
  remaining: fc.oneof(fc.constant(1), fc.integer({ min: 1, max: 80 })),
  outputs: fc.constantFrom<Outputs>('last', 'all'),
})
const limits = fc
  .record({ ubatch: fc.integer({ min: 1, max: 40 }), outputs: fc.integer({ min: 1, max: 40 }) })
  .filter(({ ubatch, outputs }) => outputs <= ubatch)

const sum = (picks: readonly Pick[], key: 'tokens' | 'outputs'): number => picks.reduce((total, pick) => total + pick[key], 0)

function checkStep(pending: readonly Pending[], step: StepLimits): Pick[] {
  const picks = schedule(pending, step)
  expect(sum(picks, 'tokens')).toBeLessThanOrEqual(step.ubatch)
  expect(sum(picks, 'outputs')).toBeLessThanOrEqual(step.outputs)
  expect(new Set(picks.map(({ request }) => request)).size).toBe(picks.length)
  for (const { request, tokens, outputs } of picks) {
    const { remaining, outputs: wanted } = pending[request]!
    expect(tokens).toBeGreaterThanOrEqual(1)
    expect(tokens).toBeLessThanOrEqual(remaining)
    expect(outputs).toBe(wanted === 'all' ? tokens : tokens === remaining ? 1 : 0)
  }
  return picks
}

describe('scheduler', () => {
  test('a step keeps its limits, counts its outputs right, and is empty only when nothing is pending', () => {
    fc.assert(
      fc.property(fc.array(pendings, { maxLength: 20 }), limits, (pending, step) => {
        expect(checkStep(pending, step).length === 0).toBe(pending.length === 0)
      }),
      { seed: 7, numRuns: 500 },
    )
  })

  test('those with one token left come before longer ones, in order of arrival', () => {
    fc.assert(
      fc.property(fc.array(pendings, { maxLength: 20 }), limits, (pending, step) => {
        const picks = checkStep(pending, step)
        const rank = ({ request }: Pick): number => request + (pending[request]!.remaining === 1 ? 0 : pending.length)
        expect(picks.map(rank)).toEqual(picks.map(rank).sort((a, b) => a - b))
      }),
      { seed: 7 },
    )
  })

  test('a stream goes into every step that has room beside the oldest prompt', () => {
    fc.assert(
      fc.property(fc.array(pendings, { minLength: 1, maxLength: 20 }), fc.integer({ min: 22, max: 64 }), (pending, room) => {
        const picked = new Set(checkStep(pending, { ubatch: room, outputs: room }).map(({ request }) => request))
        pending.forEach(({ remaining }, request) => void (remaining === 1 && expect(picked).toContain(request)))
      }),
      { seed: 7 },
    )
  })

  test('a step is filled: no token that could go in is left out', () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 1, max: 80 }), { minLength: 1, maxLength: 20 }),
        fc.integer({ min: 1, max: 40 }),
        (list, room) => {
          const pending = list.map((remaining): Pending => ({ remaining, outputs: 'last' }))
          const wanted = list.reduce((total, remaining) => total + remaining, 0)
          expect(sum(checkStep(pending, { ubatch: room, outputs: room }), 'tokens')).toBe(Math.min(room, wanted))
        },
      ),
      { seed: 7 },
    )
  })

  test('every token goes into exactly one step, and the number of steps is bounded', () => {
    fc.assert(
      fc.property(fc.array(pendings, { maxLength: 12 }), limits, (requests, step) => {
        const left = requests.map(({ remaining }) => remaining)
        const outputs = requests.map(() => 0)
        const total = left.reduce((sumOfAll, remaining) => sumOfAll + remaining, 0)
        let steps = 0
        for (;;) {
          const waiting = left.flatMap((remaining, request) => (remaining > 0 ? [request] : []))
          const picks = checkStep(
            waiting.map((request) => ({ ...requests[request]!, remaining: left[request]! })),
            step,
          )
          if (picks.length === 0) break
          expect(++steps).toBeLessThanOrEqual(total)
          for (const pick of picks) {
            const request = waiting[pick.request]!
            left[request]! -= pick.tokens
            outputs[request]! += pick.outputs
          }
        }
        expect(left.every((remaining) => remaining === 0)).toBe(true)
        expect(outputs).toEqual(requests.map(({ remaining, outputs: wanted }) => (wanted === 'all' ? remaining : 1)))
      }),
      { seed: 7 },
    )
  })

  test('streams that fill every step do not starve a prompt, nor a prompt the streams', () => {
    fc.assert(
      fc.property(limits, fc.integer({ min: 2, max: 50 }), fc.constantFrom<Outputs>('last', 'all'), (step, length, wanted) => {
        // as many streams as a step has tokens; each asks for its next token as soon as it has the last: at the end of the queue
        interface Entry extends Pending {
          readonly id: string
        }
        const streams = Array.from({ length: step.ubatch }, (_, index): Entry => ({ id: `${index}`, remaining: 1, outputs: 'last' }))
        let queue: Entry[] = [...streams.slice(1), { id: 'prompt', remaining: length, outputs: wanted }, ...streams.slice(0, 1)]
        const served = new Map(streams.map(({ id }) => [id, 0]))
        let steps = 0
        for (; queue.some(({ id }) => id === 'prompt'); steps++) {
          expect(steps).toBeLessThanOrEqual(3 * (length + step.ubatch))
          const picks = checkStep(queue, step)
          const taken = new Map(picks.map(({ request, tokens }) => [queue[request]!, tokens]))
          for (const { id } of taken.keys()) served.set(id, (served.get(id) ?? 0) + 1)
          const finished = queue.filter((entry) => taken.get(entry) === entry.remaining)
          queue = queue
            .filter((entry) => !finished.includes(entry))
            .map((entry) => ({ ...entry, remaining: entry.remaining - (taken.get(entry) ?? 0) }))
          queue.push(...finished.filter(({ id }) => id !== 'prompt'))
        }
        // with more than one token and output per step, streams go on while the prompt is worked on
        if (step.outputs > 2 && steps > 3 * step.ubatch) expect(Math.min(...served.values())).toBeGreaterThan(0)
      }),
      { seed: 7 },
    )
  })
})
