// A user stage that steers: the tokens in `data` cannot be chosen. It runs behind the head, in the pool.
import type { UserFunction } from '../../src/index.ts'

const without: UserFunction<'after head', void, readonly number[]> = ({ logits, outputs }, { data, shape }) => {
  for (let row = 0; row < outputs.length; row++) {
    // low enough never to be chosen, and still a number
    for (const token of data) logits[row * shape.vocabulary + token] = -1e9
  }
}

export default without
