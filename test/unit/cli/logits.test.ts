import { afterAll, beforeAll, expect, test } from 'vitest'
import { loadModel } from '../../../src/index.ts'
import { cli, cliModels } from './cli-process.ts'

interface Output {
  readonly positions: readonly {
    readonly pos: number
    readonly top: readonly (readonly [number, number])[]
    readonly logits?: readonly number[]
  }[]
}

const TOKENS = Array.from({ length: 70 }, (_, index) => (index * 37) % 300)

let models: Awaited<ReturnType<typeof cliModels>>
const expected: Float32Array[] = []
beforeAll(async () => {
  models = await cliModels()
  const engine = await loadModel(models.tiny, { threads: 2 })
  await engine.session().evaluate(TOKENS, (index, logits) => void (expected[index] = logits.slice()))
  await engine.close()
})
afterAll(() => models[Symbol.asyncDispose]())

const args = (): string[] => ['logits', models.tokensOnly, '--threads', '2', '--tokens', TOKENS.join(',')]

test('--full has every logit of every position, exactly', async () => {
  const { code, stdout, stderr } = await cli([...args(), '--full', '--top', '2'])
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
  const { positions } = JSON.parse(stdout) as Output
  expect(positions.map(({ pos }) => pos)).toEqual(TOKENS.map((_, index) => index))
  for (const { pos, top, logits } of positions) {
    expect(Float32Array.from(logits!)).toEqual(expected[pos])
    const best = [...expected[pos]!.entries()].sort((a, b) => b[1] - a[1] || a[0] - b[0]).slice(0, 2)
    expect(top.map(([id, logit]) => [id, Math.fround(logit)])).toEqual(best)
  }
})

test('--json shows the ten best', async () => {
  const { positions } = JSON.parse((await cli([...args(), '--json'])).stdout) as Output
  expect(positions).toHaveLength(TOKENS.length)
  expect(positions.every(({ top, logits }) => top.length === 10 && logits === undefined)).toBe(true)
})

test('a person sees a table', async () => {
  const { stdout } = await cli(['logits', models.tiny, '--tokens', '1,2', '--top', '3'])
  expect(stdout).toMatch(/^position 0\n(?: *\d+ +-?\d+\.\d{4}\n){3}position 1\n(?: *\d+ +-?\d+\.\d{4}\n){3}$/)
})

test('a token outside the vocabulary fails', async () => {
  const { code, stdout, stderr } = await cli(['logits', models.tiny, '--tokens', '1,300', '--json'])
  expect({ code, stdout }).toEqual({ code: 1, stdout: '' })
  expect(stderr).toMatch(/^error ERR_TOKEN_RANGE: token 300 .*\n$/)
})
