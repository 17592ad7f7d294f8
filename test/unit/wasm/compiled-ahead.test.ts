/** When the kernels are handed out nothing is left to compile: the first token is as fast as any other. */
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'
import { canTierUp } from '../../../src/wasm/v8-flags.ts'

const source = (path: string): string => JSON.stringify(new URL(`../../../src/${path}`, import.meta.url).href)

/** Prints the exports that are not optimised, then calls everything until V8 would optimise what is left. */
const PROGRAM = `
import { setFlagsFromString } from 'node:v8'
import { setTimeout } from 'node:timers/promises'
import { compileKernels, instantiateKernels } from ${source('wasm/kernels.ts')}
import { Bench, SELF_TEST, SELF_TEST_BYTES } from ${source('wasm/self-test.ts')}
import { createArena } from ${source('ring/arena.ts')}
const { module } = await compileKernels()
const start = 131072
const memory = createArena(start + SELF_TEST_BYTES)
const kernels = instantiateKernels(module, memory, start, 65536)
const isOptimized = new Function('kernel', 'return %IsTurboFanFunction(kernel)')
const calledByTheLoader = /^_?(initialize|emscripten_stack)/
const names = Object.keys(kernels).filter((name) => typeof kernels[name] === 'function' && !name.replace(/^_+/, '').match(calledByTheLoader))
console.log('READY', names.length, names.filter((name) => !isOptimized(kernels[name])))
setFlagsFromString('--wasm-tiering-budget=1')
const bench = new Bench(kernels, memory, start)
for (let round = 0; round < 3; round++) {
  for (const test of SELF_TEST) bench.run(test)
  await setTimeout(50)
}
`

test.skipIf(!canTierUp(process.versions.v8)).each(['1', '0'])('every function is optimised ahead, TANDEM_REVECTORIZE=%s', async (wish) => {
  const flags = ['--allow-natives-syntax', '--trace-wasm-compilation-times', '--input-type=module', '--eval', PROGRAM]
  const { stdout } = await promisify(execFile)(process.execPath, flags, {
    env: { ...process.env, TANDEM_REVECTORIZE: wish },
    maxBuffer: 1 << 24,
  })
  const [ready, ...after] = stdout.slice(stdout.indexOf('READY')).trim().split('\n')
  expect(ready).toMatch(/^READY \d+ \[\]$/)
  // Node strips types with a WebAssembly module of its own, which may still be at work: the kernels are the module that was optimised most
  const modules = [...stdout.slice(0, stdout.indexOf('READY')).matchAll(/Compiled function (\w+)#\d+ using TurboFan/g)].map(
    (match) => match[1]!,
  )
  const count = (module: string): number => modules.filter((other) => other === module).length
  const kernels = modules.toSorted((a, b) => count(b) - count(a))[0]!
  expect(after.filter((line) => line.includes(`${kernels}#`))).toEqual([])
})
