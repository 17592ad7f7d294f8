// What is imported when: `import 'tandem-moe'` and `tandem --help` are quick because they leave the engine and its libraries alone.
import { spawnSync } from 'node:child_process'
import { expect, test } from 'vitest'

/** Imports a file in a process of its own, and tells the modules that this loaded and what was active at the end. */
function loadedBy(path: string, ...args: readonly string[]): { modules: string[]; active: string[] } {
  const url = new URL(`../../../src/${path}`, import.meta.url).href
  const program = `
    import { registerHooks } from 'node:module'
    const modules = []
    registerHooks({ load: (url, context, next) => (modules.push(url), next(url, context)) })
    process.on('exit', () => process.stderr.write(JSON.stringify({ modules, active: process.getActiveResourcesInfo() })))
    process.argv = [process.execPath, 'main', ...${JSON.stringify(args)}]
    await import(${JSON.stringify(url)})`
  const { stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', program], { encoding: 'utf8' })
  return JSON.parse(stderr) as { modules: string[]; active: string[] }
}

const HEAVY = /piscina|koffi|comlink|jinja|tokenizers|bullmq|ioredis|src\/(engine|wasm|cuda|text|queue)\//

test('importing the package imports no engine, no library, and starts nothing', () => {
  const { modules, active } = loadedBy('index.ts')
  expect(modules.some((url) => url.endsWith('src/index.ts'))).toBe(true)
  expect(modules.filter((url) => HEAVY.test(url))).toEqual([])
  expect(active.filter((name) => /Worker|MessagePort/.test(name))).toEqual([])
})

test('--help imports no command', () => {
  const { modules } = loadedBy('cli/main.ts', '--help')
  expect(modules.some((url) => url.endsWith('src/cli/program.ts'))).toBe(true)
  expect(modules.filter((url) => HEAVY.test(url) || url.includes('/commands/'))).toEqual([])
})

test.each(['batch', 'worker', 'queue'])('%s --help does not load what talks to Redis', (command) => {
  const { modules } = loadedBy('cli/main.ts', command, '--help')
  expect(modules.some((url) => url.endsWith(`/commands/${command}.ts`))).toBe(true)
  expect(modules.filter((url) => /bullmq|ioredis/.test(url))).toEqual([])
})
