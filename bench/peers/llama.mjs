// node-llama-cpp's process. CPU only; what is not set here is its default: flash attention "auto", memory-mapped weights, f16 cache. Prompts go in with
// batches of `ubatch` tokens. Tokens are evaluated directly: no text, no chat wrapper, greedy choice.
import { readFileSync } from 'node:fs'
import { getLlama, LlamaLogLevel } from 'node-llama-cpp'

let sequence
let generated

async function load({ path, threads, contextTokens, ubatch }) {
  const start = performance.now()
  const llama = await getLlama({ gpu: false, build: 'never', logLevel: LlamaLogLevel.error, maxThreads: threads })
  const model = await llama.loadModel({ modelPath: path })
  const context = await model.createContext({
    contextSize: contextTokens,
    batchSize: ubatch,
    sequences: 1,
    threads: { ideal: threads, min: threads },
  })
  sequence = context.getSequence()
  const { version } = JSON.parse(readFileSync(new URL('node_modules/node-llama-cpp/package.json', import.meta.url), 'utf8'))
  const about = `node-llama-cpp ${version} (llama.cpp ${llama.llamaCppRelease.release}), ${context.currentThreads} threads`
  return { ms: performance.now() - start, about }
}

async function prompt({ tokens }) {
  await sequence.clearHistory()
  const start = performance.now()
  generated = sequence.evaluate(tokens, { temperature: 0, yieldEogToken: true })
  const { value } = await generated.next()
  return { ms: performance.now() - start, best: [value] }
}

// what is passed to next() takes the place of the token that was chosen
async function decode({ tokens: [tokens] }) {
  const best = []
  const start = performance.now()
  for (const token of tokens) best.push((await generated.next(token)).value)
  return { ms: performance.now() - start, best }
}

function cpu() {
  const { user, system } = process.cpuUsage()
  return { ms: (user + system) / 1000 }
}

const ANSWERS = { load, prompt, decode, cpu }

process.on('message', async (request) => {
  try {
    process.send(await ANSWERS[request.kind](request))
  } catch (error) {
    process.send({ ms: 0, error: String(error) })
  }
})
process.on('disconnect', () => process.exit())
