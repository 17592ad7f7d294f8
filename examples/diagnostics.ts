// What the engine does, told to whoever listens: node examples/diagnostics.ts
import { subscribe, tracingChannel } from 'node:diagnostics_channel'
import { type GenerateMessage, loadModel, type LoadMessage, POCKET_MODEL, type StepMessage } from '../src/index.ts'

tracingChannel<LoadMessage>('tandem:load').subscribe({
  asyncEnd: ({ path, model, bytes }) =>
    console.log(model === undefined ? `${path} could not be opened` : `loaded ${model}, ${bytes} bytes`),
})
tracingChannel<GenerateMessage>('tandem:generate').subscribe({
  asyncEnd: ({ model, finish }) =>
    console.log(`${model}: ${finish?.tokens} tokens behind ${finish?.promptTokens}, then ${finish?.finishReason}`),
})
const steps: StepMessage[] = []
subscribe('tandem:step', (message) => void steps.push(message as StepMessage))

await using engine = await loadModel(POCKET_MODEL, { contextTokens: 256 })
await Promise.all(['What is 27 + 48?', 'Sort 31 7 90 12.'].map((prompt) => engine.generate(prompt)))
const tokens = steps.reduce((sum, step) => sum + step.tokens, 0)
console.log(
  `${tokens} tokens in ${steps.length} steps, of up to ${Math.max(...steps.map(({ sequences }) => sequences))} sequences at a time`,
)
