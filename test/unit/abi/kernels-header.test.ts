// src/abi/kernels.ts is written by hand beside wasm/kernels.h: this is what keeps them one.
import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import {
  ATTENTION_CHUNK_TOKENS,
  ATTENTION_TILE_QUERIES,
  GATING,
  KERNEL_STATUS,
  KV_BLOCK_TOKENS,
  KV_ROW_TOKENS,
  MATMUL,
} from '../../../src/abi/kernels.ts'
import { PANEL_ROWS } from '../../../src/abi/formats.ts'

const read = (path: string): string =>
  readFileSync(new URL(`../../../${path}`, import.meta.url), 'utf8')
    .replaceAll(/\/\*[\s\S]*?\*\//g, '')
    .replaceAll(/\/\/.*$/gm, '')

const header = read('wasm/kernels.h')
const twin = read('src/abi/kernels.ts')

const camel = (name: string): string => name.replaceAll(/_(\w)/g, (_, letter: string) => letter.toUpperCase())
const split = (list: string): string[] =>
  list
    .split(',')
    .map((part) => part.trim())
    .filter((part) => part !== '')

/** `int name(type a, type *b);` as name -> [a, b]. */
const prototypes = Object.fromEntries(
  [...header.matchAll(/^int (\w+)\(([^)]*)\);/gm)].map(([, name, list]) => [
    name,
    split(list ?? '').map((parameter) => camel(/(\w+)$/.exec(parameter)?.[1] ?? '?')),
  ]),
)

/** `name(a: number, b: number): number` of the interface, likewise. */
const body = /interface KernelExports \{([\s\S]*?)\n\}/.exec(twin)?.[1] ?? ''
const methods = Object.fromEntries(
  [...body.matchAll(/^\s*(\w+)\(([^)]*)\): number/gm)].map(([, name, list]) => [
    name,
    split(list ?? '').map((parameter) => /^(\w+): number$/.exec(parameter)?.[1] ?? `not a number: ${parameter}`),
  ]),
)

/** Every `NAME = value` of the header's enums. */
const constants: Record<string, number> = Object.fromEntries(
  [...header.matchAll(/enum\s*\w*\s*\{([^}]*)\}/g)]
    .flatMap(([, list]) => split(list ?? ''))
    .map((entry) => /^(\w+) = (\d+)$/.exec(entry))
    .map((match) => [match?.[1] ?? '?', Number(match?.[2])]),
)

const upper = (prefix: string, table: Record<string, number>): Record<string, number> =>
  Object.fromEntries(
    Object.entries(table).map(([name, value]) => [`${prefix}_${name.replaceAll(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase()}`, value]),
  )

test('the same functions with the same parameters in the same order', () => {
  expect(Object.keys(prototypes).length).toBeGreaterThan(9)
  expect(methods).toEqual(prototypes)
})

test('the same constants', () => {
  expect(constants).toEqual({
    ...upper('STATUS', KERNEL_STATUS),
    ...upper('MATMUL', MATMUL),
    ...upper('GATING', GATING),
    KV_BLOCK_TOKENS,
    KV_ROW_TOKENS,
    ATTENTION_CHUNK_TOKENS,
    ATTENTION_TILE_QUERIES,
    PANEL_ROWS,
  })
})
