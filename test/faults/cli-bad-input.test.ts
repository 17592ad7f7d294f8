// Files that are not what they should be: exit 1, one line with a code on stderr, nothing on stdout, in every command that opens a model.
import { writeFile } from 'node:fs/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { cli, cliModels } from '../unit/cli/cli-process.ts'

let models: Awaited<ReturnType<typeof cliModels>>
beforeAll(async () => {
  models = await cliModels()
  await writeFile(models.path('text.gguf'), 'This is a text, however it is called.\n')
})
afterAll(() => models[Symbol.asyncDispose]())

const COMMANDS: readonly (readonly [string, readonly string[]])[] = [
  ['generate', ['--prompt', 'x']],
  ['chat', []],
  ['tokenize', ['--text', 'x']],
  ['logits', ['--tokens', '1']],
  ['perplexity', ['--file', new URL(import.meta.url).pathname]],
  ['inspect', []],
  ['plan', []],
]

describe.each(COMMANDS)('%s', (command, options) => {
  test.each([
    ['nowhere.gguf', 'ERR_FILE_ACCESS'],
    ['text.gguf', 'ERR_GGUF_MAGIC'],
  ])('of %s', async (name, error) => {
    const { code, stdout, stderr } = await cli([command, models.path(name), ...options])
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' })
    expect(stderr).toMatch(new RegExp(`^error ${error}: .*${name}: .*\n$`))
  })
})

test('a prompt longer than the context', async () => {
  const { code, stdout, stderr } = await cli(['generate', models.tiny, '--context', '16', '--prompt', 'many words '.repeat(20)])
  expect({ code, stdout }).toEqual({ code: 1, stdout: '' })
  expect(stderr).toMatch(/^error ERR_CONTEXT_OVERFLOW: .*\n$/)
})

test('a stack only for those who ask', async () => {
  const { stderr } = await cli(['plan', models.path('text.gguf')], { env: { TANDEM_DEBUG: '1' } })
  expect(stderr).toMatch(/^error ERR_GGUF_MAGIC: .*\nTandemError: [^]*\n {4}at /)
})
