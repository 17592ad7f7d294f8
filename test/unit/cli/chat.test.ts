import { afterAll, beforeAll, expect, test } from 'vitest'
import { type ChatMessage, loadModel } from '../../../src/index.ts'
import { cli, cliModels } from './cli-process.ts'

let models: Awaited<ReturnType<typeof cliModels>>
beforeAll(async () => {
  models = await cliModels()
})
afterAll(() => models[Symbol.asyncDispose]())

/** The answers of a conversation, computed without the command. */
async function answers(messages: ChatMessage[], questions: readonly string[]): Promise<string[]> {
  const engine = await loadModel(models.tiny, { threads: 2 })
  const conversation = [...messages]
  for (const content of questions) {
    conversation.push({ role: 'user', content })
    const { text } = await engine.generate(conversation, { maxTokens: 8 })
    conversation.push({ role: 'assistant', content: text })
  }
  await engine.close()
  return conversation.filter(({ role }) => role === 'assistant').map(({ content }) => String(content))
}

const args = (): string[] => ['chat', models.tiny, '--threads', '2', '--max-tokens', '8', '--quiet']

test('lines that are piped in are answered with what was said before in mind', async () => {
  const expected = await answers([], ['hi', 'and you'])
  const { code, stdout, stderr } = await cli(args(), { input: 'hi\n\n  and you\n' })
  expect({ code, stdout, stderr }).toEqual({ code: 0, stdout: expected.map((text) => `${text}\n`).join(''), stderr: '' })
})

test('a system message comes first, /clear forgets, /exit ends', async () => {
  const [first] = await answers([{ role: 'system', content: 'be kind' }], ['hi'])
  const { code, stdout } = await cli([...args(), '--system', 'be kind'], { input: 'hi\n/clear\nhi\n/exit\nnever said\n' })
  expect({ code, stdout }).toEqual({ code: 0, stdout: `${first}\n${first}\n` })
})

test('a conversation that outgrows the context fails', async () => {
  const { code, stderr } = await cli([...args(), '--context', '16'], { input: `${'hello '.repeat(20)}\n` })
  expect(code).toBe(1)
  expect(stderr).toMatch(/^error ERR_CONTEXT_OVERFLOW: .*\n$/)
})

test('a file without a chat template cannot chat', async () => {
  const { code, stderr } = await cli(['chat', models.tokensOnly], { input: 'hi\n' })
  expect(code).toBe(1)
  expect(stderr).toMatch(/^error ERR_TEMPLATE: .*no chat template; use tandem generate --raw\n$/)
})
