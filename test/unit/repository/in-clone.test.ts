// The entrance of a clone's npm scripts, in a toy clone whose npm is a script that notes every call.
import { spawn, type ChildProcessByStdio } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, utimesSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Readable } from 'node:stream'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, expect, test } from 'vitest'

const scripts = fileURLToPath(new URL('../../../scripts', import.meta.url))

const FAKE_NPM = `
import { appendFileSync, mkdirSync, writeFileSync } from 'node:fs'
import { setTimeout } from 'node:timers/promises'
appendFileSync('npm-calls', process.argv.slice(2).join(' ') + '\\n')
console.log('noise on stdout')
if (process.env.FAKE_NPM === 'offline') { console.error('npm error code ENOTFOUND'); process.exit(1) }
await setTimeout(process.env.FAKE_NPM === 'slow' ? 20_000 : 200)
mkdirSync('node_modules/a', { recursive: true })
writeFileSync('node_modules/a/package.json', '{}')
writeFileSync('node_modules/.package-lock.json', '{"packages":{"node_modules/a":{"version":"1.0.0","integrity":"i"}}}')
`

const CLI = `
import { setTimeout } from 'node:timers/promises'
const args: string[] = process.argv.slice(2)
if (args[0] === 'exit') process.exit(Number(args[1]))
if (args[0] === 'wait') {
  process.once('SIGINT', () => void setTimeout(100).then(() => { console.log('closed cleanly'); process.exit(130) }))
  console.log('ready')
  await setTimeout(20_000)
}
console.log(JSON.stringify(args))
`

interface Result {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

let clone: string

beforeEach(() => {
  clone = mkdtempSync(join(tmpdir(), 'tandem-clone-'))
  for (const folder of ['scripts', 'src/cli', '.node']) mkdirSync(join(clone, folder), { recursive: true })
  for (const name of ['in-clone.mjs', 'set-up.mjs']) cpSync(join(scripts, name), join(clone, 'scripts', name))
  writeFileSync(join(clone, 'package.json'), '{"type":"module"}')
  writeFileSync(
    join(clone, 'package-lock.json'),
    '{"packages":{"":{},"node_modules/a":{"version":"1.0.0","integrity":"i"},"node_modules/b":{"version":"1.0.0","optional":true}}}',
  )
  writeFileSync(join(clone, '.node/package.json'), '{"optionalDependencies":{}}')
  writeFileSync(join(clone, 'npm-cli.js'), FAKE_NPM)
  writeFileSync(join(clone, 'src/cli/main.ts'), CLI)
})

afterEach(() => rmSync(clone, { recursive: true, force: true }))

function start(args: readonly string[], fakeNpm = ''): { child: ChildProcessByStdio<null, Readable, Readable>; result: Promise<Result> } {
  const env = { ...process.env, npm_execpath: join(clone, 'npm-cli.js'), FAKE_NPM: fakeNpm }
  const child = spawn(process.execPath, ['scripts/in-clone.mjs', ...args], { cwd: clone, env, stdio: ['ignore', 'pipe', 'pipe'] })
  let stdout = ''
  let stderr = ''
  child.stdout.on('data', (chunk: Buffer) => (stdout += chunk.toString()))
  child.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString()))
  const result = new Promise<Result>((resolve) => child.on('close', (code) => resolve({ code, stdout, stderr })))
  return { child, result }
}

const npmCalls = (): number =>
  existsSync(join(clone, 'npm-calls')) ? readFileSync(join(clone, 'npm-calls'), 'utf8').trim().split('\n').length : 0

const firstOutput = (stream: Readable): Promise<void> => new Promise((resolve) => stream.once('data', () => resolve()))

test('the first command installs, says so on stderr and leaves stdout to the command', async () => {
  const { code, stdout, stderr } = await start(['tandem', 'plan', 'a b', '--json']).result
  expect({ code, stdout }).toEqual({ code: 0, stdout: '["plan","a b","--json"]\n' })
  expect(stderr).toMatch(/^tandem: first run: installing the packages \(npm ci\)\ntandem: done after \d+ s\n$/)
  expect(readFileSync(join(clone, 'npm-calls'), 'utf8')).toMatch(/^ci /)
})

test('the next command installs nothing and says nothing', async () => {
  await start(['tandem']).result
  const { stdout, stderr } = await start(['tandem', 'x']).result
  expect({ stdout, stderr, calls: npmCalls() }).toEqual({ stdout: '["x"]\n', stderr: '', calls: 1 })
})

test.each([
  ['a package is gone', () => rmSync(join(clone, 'node_modules/a'), { recursive: true })],
  ['the installation was interrupted', () => rmSync(join(clone, 'node_modules/.package-lock.json'))],
  [
    'the lock asks for another version',
    () =>
      writeFileSync(join(clone, 'node_modules/.package-lock.json'), '{"packages":{"node_modules/a":{"version":"0.9.0","integrity":"i"}}}'),
  ],
])('installs again when %s', async (_, damage) => {
  await start(['tandem']).result
  damage()
  await start(['tandem']).result
  expect(npmCalls()).toBe(2)
})

test('two first commands at once install once', async () => {
  const results = await Promise.all([start(['tandem', 'one']).result, start(['tandem', 'two']).result])
  expect(results.map((result) => result.stdout)).toEqual(['["one"]\n', '["two"]\n'])
  expect(npmCalls()).toBe(1)
  expect(existsSync(join(clone, '.cache/set-up.lock'))).toBe(false)
})

test('a lock left over by a killed command does not last', async () => {
  mkdirSync(join(clone, '.cache'))
  writeFileSync(join(clone, '.cache/set-up.lock'), '1')
  const minuteAgo = new Date(Date.now() - 60_000)
  utimesSync(join(clone, '.cache/set-up.lock'), minuteAgo, minuteAgo)
  expect((await start(['tandem']).result).code).toBe(0)
})

test('a failed installation is one line with the reason, and nothing is left locked', async () => {
  const { code, stdout, stderr } = await start(['tandem'], 'offline').result
  expect({ code, stdout }).toEqual({ code: 1, stdout: '' })
  const errors = stderr.split('\n').filter((line) => !line.startsWith('tandem: '))
  expect(errors).toEqual([expect.stringMatching(/^error ERR_SETUP: npm ci failed in .* \(ENOTFOUND\); check the network/), ''])
  expect(existsSync(join(clone, '.cache/set-up.lock'))).toBe(false)
})

test('the exit code is the command’s', async () => {
  await start(['tandem']).result
  expect((await start(['tandem', 'exit', '2']).result).code).toBe(2)
  expect((await start(['nonsense']).result).code).toBe(2)
})

test('Ctrl-C reaches the command, which closes cleanly and chooses the exit code', async () => {
  await start(['tandem']).result
  const { child, result } = start(['tandem', 'wait'])
  await firstOutput(child.stdout)
  child.kill('SIGINT')
  expect(await result).toEqual({ code: 130, stdout: 'ready\nclosed cleanly\n', stderr: '' })
})

test('Ctrl-C during the installation ends it, and the next command starts over', async () => {
  const { child, result } = start(['tandem'], 'slow')
  await firstOutput(child.stderr)
  child.kill('SIGINT')
  expect((await result).code).toBe(130)
  expect(existsSync(join(clone, '.cache/set-up.lock'))).toBe(false)
  expect((await start(['tandem']).result).code).toBe(0)
})
