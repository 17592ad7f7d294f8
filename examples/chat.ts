// A conversation: what a session has computed already is not computed again: node examples/chat.ts
import { type ChatMessage, loadModel, POCKET_MODEL } from '../src/index.ts'

await using engine = await loadModel(POCKET_MODEL, { contextTokens: 512 })
const session = engine.session()
const messages: ChatMessage[] = []

for (const question of ['What is 27 + 48?', 'Sort 31 7 90 12.', 'Spell cheese backwards.']) {
  messages.push({ role: 'user', content: question })
  let answer = ''
  let reused = 0
  for await (const { text, finish } of session.generate(messages)) {
    answer += text
    reused = finish?.reusedTokens ?? reused
  }
  messages.push({ role: 'assistant', content: answer })
  console.log(`${question} ${answer} (${reused} tokens of the prompt were there)`)
}
