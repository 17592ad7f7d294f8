import { spawn } from 'node:child_process'
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { microModel, type MicroModel } from '../../fixtures/engine-micro.ts'
import { cli } from './cli-process.ts'

let model: MicroModel
beforeAll(async () => {
  model = await microModel()
})
afterAll(() => model[Symbol.asyncDispose]())

const failed = (pattern: RegExp) => ({ code: 1, stdout: '', stderr: expect.stringMatching(pattern) as string })
const talked = (pattern: RegExp) => ({ code: 0, stdout: '', stderr: expect.stringMatching(pattern) as string })

test('writes a file beside the model, and another only when told to', async () => {
  expect(await cli(['repack', model.path])).toEqual(talked(/micro\.gguf\.tandem: [\d.]+ MB, \d+ matrices, [\d.]+ s\n$/))
  const before = readFileSync(`${model.path}.tandem`)
  expect(await cli(['repack', model.path])).toEqual(failed(/^error ERR_FILE_ACCESS: .*--force replaces it\n$/))
  expect((await cli(['repack', model.path, '--force', '-q'])).stderr).toBe('')
  expect(readFileSync(`${model.path}.tandem`).equals(before)).toBe(true)
})

test('--sidecar: the same logits, and a stale file is refused', async () => {
  const output = `${model.directory}/elsewhere.tandem`
  expect((await cli(['repack', model.path, '-o', output])).code).toBe(0)
  const args = ['logits', model.path, '--tokens', '1,2,3', '--full', '--json']
  const [expected, found, beside] = [await cli(args), await cli([...args, '--sidecar', output]), await cli([...args, '--sidecar', 'auto'])]
  expect(expected.code).toBe(0)
  expect(found).toEqual(expected)
  expect(beside).toEqual(expected)
  expect(await cli([...args, '--sidecar', model.path])).toEqual(failed(/^error ERR_SIDECAR_INVALID: .*tandem repack --force\n$/))
})

test('--verify tells a damaged file', async () => {
  expect(await cli(['repack', model.path, '--verify'])).toEqual(talked(/micro\.gguf\.tandem: as it was written, and the model too/))
  const path = `${model.path}.tandem`
  const handle = await open(path, 'r+')
  await handle.write(Buffer.of(1, 2, 3), 0, 3, statSync(path).size - 9000)
  await handle.close()
  expect(await cli(['repack', model.path, '--verify'])).toEqual(failed(/^error ERR_SIDECAR_INVALID: .*the panels do not have the checksum/))
})

test.skipIf(process.platform === 'win32')('no room for all of it: an error, and nothing is left', async () => {
  const main = fileURLToPath(new URL('../../../src/cli/main.ts', import.meta.url))
  const output = `${model.directory}/full.tandem`
  const command = 'ulimit -f 1000; exec "$0" "$@"'
  const child = spawn('bash', ['-c', command, process.execPath, main, 'repack', model.path, '-o', output])
  let stderr = ''
  child.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString()))
  expect(await new Promise((resolve) => child.on('close', resolve))).toBe(1)
  expect(stderr).toMatch(/^error ERR_FILE_ACCESS: /)
  expect(readdirSync(model.directory).filter((name) => name.includes('full'))).toEqual([])
})
