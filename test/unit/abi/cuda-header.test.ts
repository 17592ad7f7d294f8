// src/abi/cuda.ts is written by hand beside cuda/tandem_cuda.h: this is what keeps them one.
import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { HANDOFF } from '../../../src/abi/control.ts'
import { CUDA_ABI_VERSION, CUDA_FUNCTIONS, CUDA_RESULTS, CUDA_ROWS, CUDA_STATUS, CUDA_STRUCTS } from '../../../src/abi/cuda.ts'

const commented = readFileSync(new URL('../../../cuda/tandem_cuda.h', import.meta.url), 'utf8')
const header = commented.replaceAll(/\/\*[\s\S]*?\*\//g, '')

const camel = (name: string): string => name.replaceAll(/_(\w)/g, (_, letter: string) => letter.toUpperCase())
const snake = (name: string): string => name.replaceAll(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase()
const split = (list: string, separator: string): string[] =>
  list
    .split(separator)
    .map((part) => part.trim())
    .filter((part) => part !== '')

const NUMBERS: Readonly<Record<string, string>> = { int32_t: 'i32', uint64_t: 'u64', float: 'f32' }

/** `tcu_shape` -> shape, `int32_t` -> i32; undefined for what only pointers may point to. */
const valueType = (type: string): string | undefined => NUMBERS[type] ?? /^tcu_(\w+)$/.exec(type)?.[1]

/** `const float *a, *b` or `char a[128]` -> [[a, pointer], [b, pointer]] or [[a, chars128]]. */
function fields(declaration: string): [string, string][] {
  const [, type, list] = /^(?:const )?(\w+) (.*)$/s.exec(declaration) ?? []
  return split(list ?? '', ',').map((declarator) => {
    const [, star, name, count] = /^(\*?)(\w+)(?:\[(\d+)\])?$/.exec(declarator) ?? []
    return [camel(name ?? '?'), star ? 'pointer' : count ? `${type}s${count}` : (valueType(type ?? '') ?? '?')]
  })
}

/** `const tcu_shape *shape` -> [shape, shape, in]; `uint64_t *bytes` -> [bytes, u64, out]. */
function parameter(text: string): [string, string, string] {
  const [, constant, type, stars, name] = /^(const )?(\w+) (\**)(\w+)$/.exec(text) ?? []
  const value = valueType(type ?? '')
  const isHandle = value === 'engine' || value === 'graph'
  if (value === undefined || (constant && value in NUMBERS)) return [camel(name ?? '?'), 'pointer', 'in']
  const isOut = isHandle ? stars === '**' : stars === '*' && !constant
  return [camel(name ?? '?'), value, isOut ? 'out' : 'in']
}

const structs = Object.fromEntries(
  [...header.matchAll(/typedef struct tcu_(\w+) \{([^}]*)\}/g)].map(([, name, body]) => [name, split(body ?? '', ';').flatMap(fields)]),
)

const functions = Object.fromEntries(
  [...header.matchAll(/^int (tcu_\w+)\(([^)]*)\);/gm)].map(([, name, list]) => [name, split(list ?? '', ',').map(parameter)]),
)

const constants = Object.fromEntries([...header.matchAll(/\b(TCU_\w+) = (\d+)/g)].map(([, name, value]) => [name, Number(value)]))

test('the same structs with the same fields in the same order', () => {
  expect(Object.keys(structs).length).toBeGreaterThan(8)
  expect(structs).toEqual(CUDA_STRUCTS)
})

test('a struct comes after those it contains', () => {
  const names = Object.keys(CUDA_STRUCTS)
  for (const [name, list] of Object.entries(CUDA_STRUCTS)) {
    for (const [, type] of list) expect(names.indexOf(type), `${type} in ${name}`).toBeLessThan(names.indexOf(name))
  }
})

test('the same functions with the same parameters in the same order', () => {
  expect(Object.keys(functions).length).toBeGreaterThan(30)
  expect(functions).toEqual(CUDA_FUNCTIONS)
  expect(Object.keys(functions)).toEqual(Object.keys(CUDA_FUNCTIONS))
})

test('the same constants', () => {
  const named = [CUDA_STATUS, CUDA_RESULTS, CUDA_ROWS].flatMap((table) => Object.entries<number>(table))
  const ours = named.map(([name, value]) => [`TCU_${snake(name)}`, value])
  expect(constants).toEqual({ TCU_ABI_VERSION: CUDA_ABI_VERSION, ...Object.fromEntries(ours) })
})

test('the words behind the published hand-offs lie where the header says', () => {
  const [, entry] = /published\[(\d)\]: the slot's entry/.exec(commented) ?? []
  const [, tokens] = /published\[(\d)\]: its tokens/.exec(commented) ?? []
  expect(HANDOFF.entry - HANDOFF.published).toBe(Number(entry))
  expect(HANDOFF.tokens - HANDOFF.published).toBe(Number(tokens))
})
