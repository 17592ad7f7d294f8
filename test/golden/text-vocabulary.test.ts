/**
 * Tokenizers of three real models against the ids that their own tokenizers give: the public vocabulary tests of the llama.cpp project
 * (`models/ggml-vocab-*`), looked for beside the repository.
 */
import { existsSync, readFileSync } from 'node:fs'
import { beforeAll, describe, expect, it } from 'vitest'
import { openModelFile } from '../../src/gguf/open.ts'
import { createTokenizer } from '../../src/text/tokenizer.ts'
import type { Tokenizer } from '../../src/text/tokenizer.ts'

const FOLDER = new URL('../../../shared/golden/vocab/', import.meta.url)
const isPresent = existsSync(FOLDER)
if (!isPresent) console.warn(`SKIPPED: tokenizers against real vocabularies; there is no ${FOLDER.pathname}`)

/** Texts and their ids; one line of ids for each text. */
function readCases(name: string): { text: string; ids: number[] }[] {
  const read = (ending: string): string => readFileSync(new URL(`ggml-vocab-${name}.gguf.${ending}`, FOLDER), 'utf8')
  const lines = read('out').split('\n')
  return read('inp')
    .split('\n__ggml_vocab_test__\n')
    .map((text, i) => ({ text, ids: (lines[i]?.match(/\d+/g) ?? []).map(Number) }))
}

describe.skipIf(!isPresent).each(['gpt-2', 'deepseek-llm', 'llama-spm'])('vocabulary of %s', (name) => {
  let tokenizer: Tokenizer
  let buildMs = 0

  beforeAll(async () => {
    const { metadata } = await openModelFile(new URL(`ggml-vocab-${name}.gguf`, FOLDER).pathname)
    const start = performance.now()
    tokenizer = createTokenizer(metadata)
    tokenizer.encode('The first word builds what is built on demand.')
    buildMs = performance.now() - start
  })

  it('gives the ids of the model', () => {
    const cases = readCases(name)
    expect(cases.length).toBeGreaterThan(40)
    for (const { text, ids } of cases) expect({ text, ids: tokenizer.encode(text, { addSpecial: false }) }).toEqual({ text, ids })
  })

  it('decodes the ids to the text', () => {
    for (const { text, ids } of readCases(name)) expect(tokenizer.decode(ids)).toBe(text)
  })

  it('knows its special tokens', () => {
    const { bos, eos, addBos, endOfGeneration } = tokenizer
    const expected = {
      'gpt-2': { bos: 50256, eos: 50256, addBos: false },
      'deepseek-llm': { bos: 100000, eos: 100001, addBos: true },
      'llama-spm': { bos: 1, eos: 2, addBos: true },
    }[name]
    expect({ bos, eos, addBos }).toEqual(expected)
    expect([...endOfGeneration]).toEqual([eos])
    expect(tokenizer.encode('')).toEqual(addBos ? [bos] : [])
  })

  it('is built in well under two seconds', () => {
    expect(buildMs).toBeLessThan(2000)
  })
})
