// Streams an answer, and says how fast it came: node examples/stream.ts
import { loadModel, POCKET_MODEL } from '../src/index.ts' // in a program of yours: from 'tandem-moe'

await using engine = await loadModel(POCKET_MODEL, { contextTokens: 512 })
const session = engine.session()
for await (const { text, finish } of session.generate('Tell me a story about a fox.', { temperature: 0.8, seed: 7 })) {
  process.stdout.write(text)
  if (finish) process.stderr.write(`\n${finish.tokens} tokens, ${finish.timings.tokensPerSecond.toFixed(0)} tokens/s\n`)
}
