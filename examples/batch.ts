// A file of prompts in, a file of answers out, many at a time: node examples/batch.ts
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { loadModel, POCKET_MODEL } from '../src/index.ts'

const folder = await mkdtemp(join(tmpdir(), 'tandem-example-'))
const [input, output] = [join(folder, 'in.jsonl'), join(folder, 'out.jsonl')]
const tasks = Array.from({ length: 20 }, (_, index) => ({ id: index, prompt: `What is ${index} + ${index * 3}?` }))
await writeFile(input, tasks.map((task) => `${JSON.stringify(task)}\n`).join(''))

await using engine = await loadModel(POCKET_MODEL, { contextTokens: 128, sequences: 8, kvTokens: 1024 })
const summary = await engine.batch({ input, output, defaults: { maxTokens: 16 } })
console.log(`${summary.succeeded} of ${summary.lines} answered`)
for (const line of (await readFile(output, 'utf8')).trim().split('\n')) {
  const { id, text } = JSON.parse(line) as { id: number; text: string }
  console.log(`${tasks[id]!.prompt} ${text}`)
}
await rm(folder, { recursive: true })
