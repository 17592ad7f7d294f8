// What NODE_DEBUG=tandem:* tells a person, and that it tells nothing unasked.
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type Debug, debugLog, seldom } from '../../../src/diagnostics/debug.ts'
import { batchFiles } from '../../fixtures/batch-files.ts'
import { cli, cliModels } from '../cli/cli-process.ts'

let models: Awaited<ReturnType<typeof cliModels>>
beforeAll(async () => {
  models = await cliModels()
})
afterAll(() => models[Symbol.asyncDispose]())

const generate = (NODE_DEBUG?: string): ReturnType<typeof cli> =>
  cli(
    ['generate', models.tiny, '-p', 'hello', '--max-tokens', '3', '--threads', '2', '-q'],
    NODE_DEBUG === undefined ? {} : { env: { NODE_DEBUG } },
  )

test('all sections: how a model was loaded and by what, what the workers did, and how the answer went', async () => {
  const { code, stdout, stderr } = await generate('tandem:*')
  expect({ code, lines: stdout.split('\n').length }).toEqual({ code: 0, lines: 2 })
  // every line says where it is from
  const lines = stderr.trimEnd().split('\n')
  expect(lines.filter((line) => !/^TANDEM:(LOAD|KERNELS|POOL|ENGINE) \d+(\.\d+)?: /.test(line))).toEqual([])
  for (const expected of [
    /^TANDEM:LOAD \d+: opened .*tiny\.gguf: \d+ bytes, \d+ tensors, glm4moe; [\d.]+ ms$/m,
    /^TANDEM:LOAD \d+: machine: \d+ cores .* no GPU \(none was looked for\)$/m,
    /^TANDEM:LOAD \d+: plan of '.*': pipeline cpu, \d+ calls on wasm; \{"contextTokens":/m,
    /^TANDEM:LOAD \d+: plan: wasm .*weights .*, KV cache .*, buffers /m,
    /^TANDEM:KERNELS \d+: trying build '\w+': .*; V8 /m,
    /^TANDEM:KERNELS \d+: build '\w+' ready in [\d.]+ ms, (256|128)-bit vectors/m,
    /^TANDEM:POOL \d+: 1 arenas reserved in [\d.]+ ms, huge pages /m,
    /^TANDEM:POOL \d+: starting 2 workers on \d+ cores, \d+ spins /m,
    // from their own threads
    /^TANDEM:POOL \d+\.\d+: worker 0: \d+ pieces, \d+ bytes loaded in /m,
    /^TANDEM:POOL \d+\.\d+: worker 1: \d+ pieces, \d+ bytes loaded in /m,
    /^TANDEM:POOL \d+: worker 1 has ended$/m,
    /^TANDEM:POOL \d+: closed in /m,
    /^TANDEM:LOAD \d+: loaded '.*' in [\d.]+ ms$/m,
    /^TANDEM:ENGINE \d+: 1 steps to step 1: \d+ tokens, /m,
    /^TANDEM:ENGINE \d+: generation ended \((stop|length)\): prompt \d+ tokens, 0 of them in the cache, answer \d/m,
  ]) {
    expect(stderr).toMatch(expected)
  }
})

test('one section alone, and none', async () => {
  const { stderr } = await generate('tandem:kernels')
  expect(stderr).toMatch(/^(TANDEM:KERNELS .*\n){2}$/)
  expect((await generate()).stderr).toBe('')
  expect((await generate('http')).stderr).not.toContain('TANDEM')
})

test('a batch job: its lines that fail, and what it did', async () => {
  await using files = await batchFiles()
  const input = await files.write('in.jsonl', [{ id: 1, prompt: 'hello' }, '{'])
  const { stderr } = await cli(['batch', models.tiny, input, '-o', files.path('out.jsonl'), '--max-tokens', '2', '-q'], {
    env: { NODE_DEBUG: 'tandem:batch' },
  })
  expect(stderr).toMatch(/^TANDEM:BATCH \d+: .*in\.jsonl: 2 lines, 1 of them not tasks, checked in /m)
  expect(stderr).toMatch(/^TANDEM:BATCH \d+: line 2 failed: ERR_BATCH_LINE: line 2: not JSON/m)
  expect(stderr).toMatch(/^TANDEM:BATCH \d+: done: \{"lines":2,/m)
})

test('a GPU that is not there is told with its reason', async () => {
  const { stderr } = await cli(['plan', models.tiny, '--pipeline', 'gpu', '-q'], {
    env: { NODE_DEBUG: 'tandem:cuda', TANDEM_CUDA_LIBRARY: '/nowhere/lib.so' },
  })
  expect(stderr).toMatch(/^TANDEM:CUDA \d+: probe: \{"problem":"no library: .*\/nowhere\/lib\.so/m)
})

test('off, a log does not exist, and what happens often makes few lines', () => {
  expect(debugLog('engine')).toBe(undefined)
  expect(seldom(debugLog('engine'), String)).toBe(undefined)
  const lines: string[] = []
  const log: Debug = (line) => void lines.push(line)
  const tell = seldom(log, (count) => `${count} times`)!
  for (let event = 0; event < 1000; event++) tell()
  expect(lines).toEqual(['1 times'])
})
