// Embeds texts and compares them: node examples/embeddings.ts
import { loadModel, POCKET_MODEL } from '../src/index.ts'

await using engine = await loadModel(POCKET_MODEL, { contextTokens: 512 })
const texts = ['Sort 5 3 9.', 'Sort 31 7 90 12.', 'Once upon a time there was a fox.', 'Once upon a time there was a bear.']
// of length 1, so that a dot product is a cosine
const vectors = await engine.embed(texts, { pooling: 'mean' })
for (const [index, text] of texts.entries()) {
  const cosines = vectors.map((other) => other.reduce((sum, value, column) => sum + value * vectors[index]![column]!, 0))
  console.log(`${cosines.map((cosine) => cosine.toFixed(3)).join('  ')}  ${text}`)
}
