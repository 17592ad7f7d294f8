// scripts/check-imports.mjs catches what it is there for: each case is one file in a toy tree.
import { spawnSync } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, expect, test } from 'vitest'

const root = fileURLToPath(new URL('../../..', import.meta.url))
let tree: string

beforeEach(() => {
  tree = mkdtempSync(join(tmpdir(), 'tandem-imports-'))
  for (const folder of ['scripts', 'src', 'pipelines']) mkdirSync(join(tree, folder))
  cpSync(join(root, 'scripts/check-imports.mjs'), join(tree, 'scripts/check-imports.mjs'))
  symlinkSync(join(root, 'node_modules'), join(tree, 'node_modules'))
})

afterEach(() => rmSync(tree, { recursive: true, force: true }))

function check(file: string, text: string): { ok: boolean; output: string } {
  mkdirSync(join(tree, dirname(file)), { recursive: true })
  writeFileSync(join(tree, file), text)
  const result = spawnSync(process.execPath, [join(tree, 'scripts/check-imports.mjs')], { encoding: 'utf8' })
  return { ok: result.status === 0, output: result.stdout + result.stderr }
}

test.each([
  ['a layer above', 'src/ring/ring.ts', "import { plan } from '../placement/plan.ts'", 'ring must not import placement'],
  ['the engine from an executor', 'src/wasm/pool.ts', "import { Engine } from '../engine/engine.ts'", 'wasm must not import engine'],
  ['one executor from the other', 'src/cuda/client.ts', "import type { Pool } from '../wasm/pool.ts'", 'cuda must not import wasm'],
  ['anything from abi', 'src/abi/slot.ts', "import { TandemError } from '../errors.ts'", 'abi must not import errors'],
  ['code where types alone may cross', 'src/wasm/a.ts', "import { run } from '../pipeline/program.ts'", 'pipeline (except as types)'],
  ['a re-export', 'src/gguf/all.ts', "export * from '../model/types.ts'", 'gguf must not import model'],
  ['import()', 'src/gguf/late.ts', "export const late = () => import('../cli/main.ts')", 'gguf must not import cli'],
  ['piscina elsewhere', 'src/engine/engine.ts', "import { Piscina } from 'piscina'", 'piscina is imported by src/wasm/pool.ts alone'],
  ['tests from the library', 'src/engine/engine.ts', "import { toy } from '../../test/fixtures/toy.ts'", 'is not part of the library'],
  ['an unknown folder', 'src/misc/a.ts', "import '../errors.ts'", 'src/misc has no row'],
])('refuses %s', (_, file, text, message) => {
  const { ok, output } = check(file, `${text}\n`)
  expect(ok).toBe(false)
  expect(output).toContain(`${file}:1: `)
  expect(output).toContain(message)
})

test.each([
  ['a layer below', 'src/placement/plan.ts', "import { TandemError } from '../errors.ts'"],
  ['types of the program', 'src/wasm/a.ts', "import type { Program } from '../pipeline/program.ts'"],
  ['inline types of the program', 'src/wasm/a.ts', "import { type Program } from '../pipeline/program.ts'"],
  ['the pool’s piscina', 'src/wasm/pool.ts', "import { Piscina } from 'piscina'"],
])('accepts %s', (_, file, text) => {
  expect(check(file, `${text}\n`)).toEqual({ ok: true, output: expect.stringContaining('0 imports in the wrong direction') })
})
