// Scores a GGUF on the held-out tasks of the pocket model with llama.cpp, through node-llama-cpp.
//
//   cd bench/peers && npm install && node pocket.mjs [model.gguf] [tasks.jsonl]
//
// Greedy, exact match, two threads, CPU only. Data on stdout is one JSON line; misses go to stderr.
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { Template } from '@huggingface/jinja'
import { getLlama, LlamaLogLevel } from 'node-llama-cpp'

const THREADS = 2
const MAX_ANSWER_TOKENS = 128

const models = new URL('../../models/', import.meta.url)
const modelPath = process.argv[2] ?? fileURLToPath(new URL('pocket.gguf', models))
const tasksPath = process.argv[3] ?? fileURLToPath(new URL('pocket/tasks.jsonl', models))

const llama = await getLlama({ gpu: false, build: 'never', logLevel: LlamaLogLevel.error, maxThreads: THREADS })
const model = await llama.loadModel({ modelPath })
const context = await model.createContext({ contextSize: 1024, sequences: 1, threads: THREADS })
const sequence = context.getSequence()
const template = new Template(model.fileInfo.metadata.tokenizer.chat_template)

async function answer(prompt) {
  const messages = [{ role: 'user', content: prompt }]
  const tokens = model.tokenize(template.render({ messages, add_generation_prompt: true }), true)
  const generated = []
  await sequence.clearHistory()
  for await (const token of sequence.evaluate(tokens, { temperature: 0 })) {
    generated.push(token)
    if (generated.length === MAX_ANSWER_TOKENS) break
  }
  return model.detokenize(generated)
}

const tasks = readFileSync(tasksPath, 'utf8')
  .trim()
  .split('\n')
  .map((line) => JSON.parse(line))
const families = {}
let correct = 0
for (const task of tasks) {
  const family = (families[task.family] ??= { total: 0, correct: 0 })
  const given = await answer(task.prompt)
  family.total += 1
  if (given === task.answer) {
    family.correct += 1
    correct += 1
  } else {
    console.error(`${task.id}: ${JSON.stringify(task.prompt)} gave ${JSON.stringify(given)}, not ${JSON.stringify(task.answer)}`)
  }
}
for (const family of Object.values(families)) family.accuracy = family.correct / family.total

const { version } = JSON.parse(readFileSync(new URL('node_modules/node-llama-cpp/package.json', import.meta.url), 'utf8'))
const engine = `node-llama-cpp ${version}, llama.cpp ${llama.llamaCppRelease.release}, ${THREADS} threads`
console.log(JSON.stringify({ engine, total: tasks.length, correct, accuracy: correct / tasks.length, families }))
await llama.dispose()
