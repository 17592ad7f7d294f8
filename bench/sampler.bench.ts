/** Choosing a token among 151,552 logits, GLM's vocabulary. */
import { createSampler } from '../src/sampling/sampler.ts'
import { randomRows } from '../test/conformance/reference.ts'
import { type Case, expect, isWanted, type Settings, type Suite } from './support/suite.ts'

const VOCABULARY = 151_552

function* cases(settings: Settings): Generator<Case> {
  const logits = randomRows(VOCABULARY, 1, 3)
  const best = logits.indexOf(logits.reduce((a, b) => Math.max(a, b)))
  const history = Array.from({ length: 4096 }, (_, index) => (index * 37) % VOCABULARY)
  for (const { name, options } of [
    { name: 'greedy', options: {} },
    { name: 'temperature 0.8', options: { temperature: 0.8, seed: 1 } },
    { name: 'temperature 0.8, top-k 40', options: { temperature: 0.8, topK: 40, seed: 1 } },
    { name: 'temperature 0.8, top-p 0.95', options: { temperature: 0.8, topP: 0.95, seed: 1 } },
    { name: 'temperature 0.8, min-p 0.05', options: { temperature: 0.8, minP: 0.05, seed: 1 } },
    { name: 'greedy, repetition penalty 1.1', options: { repetitionPenalty: 1.1 } },
  ]) {
    if (!isWanted(settings, 'sampler', name)) continue
    const sampler = createSampler(options)
    const check = (): void => {
      const token = sampler.sample(logits, [])
      expect(token >= 0 && token < VOCABULARY, `token ${token}`)
      if (name === 'greedy') expect(token === best, `token ${token} is not the best, ${best}`)
    }
    yield { name, work: [{ amount: 1, unit: 'us' }], check, run: () => void sampler.sample(logits, history) }
  }
}

export const suite: Suite = { name: 'sampler', about: `one token of ${VOCABULARY} logits`, bothModes: false, cases }
