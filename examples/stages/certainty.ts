// A user stage that observes, in a thread of its own: how sure the model is of its most likely next token, which it returns to the program.
import type { UserFunction } from '../../src/index.ts'

const certainty: UserFunction<'after head', number | undefined> = ({ logits, outputs }, { shape }) => {
  if (outputs.length === 0) return undefined
  const row = logits.subarray(0, shape.vocabulary)
  const largest = Math.max(...row)
  return 1 / row.reduce((sum, logit) => sum + Math.exp(logit - largest), 0)
}

export default certainty
