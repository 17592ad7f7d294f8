// A pipeline made in a program, with two functions of ours in it: node examples/custom-pipeline.ts
import { definePipeline, loadModel, POCKET_MODEL } from '../src/index.ts'

const letter = 'e'
const pipeline = definePipeline({
  name: 'lipogram',
  executor: 'wasm',
  ringDepth: 4,
  userStages: [
    // steers: the model waits for it. In the pocket model's vocabulary a token is a byte
    {
      name: 'without',
      after: 'head',
      steer: true,
      module: new URL('stages/without.ts', import.meta.url),
      data: [...Buffer.from(letter + letter.toUpperCase())],
    },
    // observes: works on copies, beside the model
    { name: 'sure', after: 'head', module: new URL('stages/certainty.ts', import.meta.url), whenFull: 'wait' },
  ],
})

await using engine = await loadModel(POCKET_MODEL, { pipeline, contextTokens: 512 })
const { text } = await engine.generate('Tell me a story about a fox.', { maxTokens: 120 })
console.log(text)
const sure = await engine.userStage<number>('sure').collect()
const mean = sure.reduce((sum, { value }) => sum + value, 0) / sure.length
console.log(`a story without '${letter}'; its ${sure.length} tokens had a probability of ${mean.toFixed(2)} on average`)
