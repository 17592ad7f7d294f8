/** A waiter stops spinning where it does not help, and finds out when it helps again. */
import { describe, expect, test } from 'vitest'
import { SpinBudget } from '../../../src/ring/spin-budget.ts'

const MOST = 1024

/** What `waits` waits spin in all when a spin ends in time with at least `needed` looks. */
function spent(budget: SpinBudget, waits: number, needed: number): number {
  let total = 0
  for (let wait = 0; wait < waits; wait++) {
    const spins = budget.next(MOST)
    expect(spins).toBeLessThanOrEqual(MOST)
    if (spins > 0) budget.learn(spins >= needed)
    total += Math.min(spins, needed)
  }
  return total
}

describe('spin budget', () => {
  test('stays whole while spins end in time', () => {
    const budget = new SpinBudget()
    spent(budget, 100, 10)
    expect(budget.next(MOST)).toBe(MOST)
  })

  test('spins a small part of the time when spins never end in time', () => {
    expect(spent(new SpinBudget(), 1000, Infinity)).toBeLessThan((1000 * MOST) / 16)
  })

  test('is whole again soon after spins end in time again', () => {
    const budget = new SpinBudget()
    spent(budget, 1000, Infinity)
    spent(budget, 100, 10)
    expect(budget.next(MOST)).toBe(MOST)
  })

  test('one spin in vain does not end it', () => {
    const budget = new SpinBudget()
    budget.learn(false)
    expect(budget.next(MOST)).toBe(MOST / 2)
    budget.learn(true)
    expect(budget.next(MOST)).toBe(MOST)
  })

  test('never spins where spinning is off', () => {
    const budget = new SpinBudget()
    for (let wait = 0; wait < 100; wait++) expect(budget.next(0)).toBe(0)
  })
})
