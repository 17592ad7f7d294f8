// Orders texts by how likely the model finds them as the answer to a query, which it reads once: node examples/rerank.ts
import { loadModel, POCKET_MODEL } from '../src/index.ts'
import pipeline, { rerank } from '../pipelines/rerank.ts'

await using engine = await loadModel(POCKET_MODEL, { pipeline, contextTokens: 512 })
const query = 'Which is the largest of 3, 17, 9?'
for (const { text, score } of await rerank(engine, query, ['3', '9', '17', '71', 'a fox'])) {
  console.log(`${score.perToken.toFixed(3).padStart(8)}  ${text}`)
}
