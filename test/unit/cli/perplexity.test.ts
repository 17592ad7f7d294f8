import { writeFile } from 'node:fs/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { loadModel } from '../../../src/index.ts'
import { cli, cliModels } from './cli-process.ts'

const TEXT = 'It was the best of times, it was the worst of times.\n'.repeat(4)

let models: Awaited<ReturnType<typeof cliModels>>
let text: string
beforeAll(async () => {
  models = await cliModels()
  text = models.path('text.txt')
  await writeFile(text, TEXT)
})
afterAll(() => models[Symbol.asyncDispose]())

/** As the definition says it, in windows of 40. */
async function reference(): Promise<{ tokens: number; nll: number }> {
  const engine = await loadModel(models.tiny, { threads: 2 })
  const ids = engine.tokenizer.encode(TEXT, { addSpecial: false })
  const session = engine.session()
  const losses: number[] = []
  for (let begin = 0; begin < ids.length; begin += 40) {
    const window = ids.slice(begin, begin + 40)
    await session.evaluate(window, (index, logits) => {
      if (index + 1 === window.length) return
      const sum = logits.reduce((total, logit) => total + Math.exp(logit), 0)
      losses.push(Math.log(sum) - logits[window[index + 1]!]!)
    })
  }
  await engine.close()
  return { tokens: losses.length, nll: losses.reduce((sum, loss) => sum + loss, 0) / losses.length }
}

test('is what the definition says', async () => {
  const { tokens, nll } = await reference()
  const { code, stdout, stderr } = await cli(['perplexity', models.tiny, '--file', text, '--context', '40', '--threads', '2', '--json'])
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
  const result = JSON.parse(stdout) as Record<string, number>
  expect(Object.keys(result)).toEqual(['tokens', 'nll', 'perplexity'])
  expect(result['tokens']).toBe(tokens)
  expect(result['nll']).toBeCloseTo(nll, 9)
  expect(result['perplexity']).toBeCloseTo(Math.exp(nll), 6)
})

test('a person sees three numbers', async () => {
  const { stdout } = await cli(['perplexity', models.tiny, '-f', text])
  expect(stdout).toMatch(/^tokens +\d+\nnll +[\d.]+\nperplexity +[\d.]+\n$/)
})

test.each([
  ['one token', 'x', 2, 'ERR_ARGUMENT'],
  ['bytes that are not UTF-8', Uint8Array.of(0x61, 0xff), 1, 'ERR_FILE_ACCESS'],
])('%s cannot be scored', async (_, content, code, error) => {
  await writeFile(models.path('bad.txt'), content)
  const result = await cli(['perplexity', models.tiny, '-f', models.path('bad.txt')])
  expect(result).toMatchObject({ code, stdout: '', stderr: expect.stringMatching(`^error ${error}: `) as string })
})

test('a text that is not there fails', async () => {
  const result = await cli(['perplexity', models.tiny, '-f', models.path('nowhere.txt')])
  expect(result).toMatchObject({ code: 1, stdout: '', stderr: expect.stringMatching(/^error ERR_FILE_ACCESS: .*nowhere.txt/) as string })
})
