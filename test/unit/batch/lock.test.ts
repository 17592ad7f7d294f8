/** One job per output, whatever became of the one before. */
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdtemp, readFile, rm, utimes, writeFile } from 'node:fs/promises'
import { hostname, tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { lockOutput } from '../../../src/batch/lock.ts'

let directory: string
let output: string
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'tandem-lock-'))
  output = join(directory, 'out.jsonl')
})
afterAll(() => rm(directory, { recursive: true }))

const leave = (owner: object | string): Promise<void> =>
  writeFile(`${output}.lock`, typeof owner === 'string' ? owner : JSON.stringify({ nonce: 'n', started: '1', ...owner }))

/** A process number that nobody has. */
const gone = (): number => spawnSync(process.execPath, ['-e', '']).pid

test('a second one is refused until the first lets go', async () => {
  const lock = await lockOutput(output)
  await expect(lockOutput(output)).rejects.toMatchObject({
    code: 'ERR_BATCH_OUTPUT',
    message: expect.stringContaining(`process ${process.pid}`) as string,
  })
  await lock.release()
  expect(existsSync(`${output}.lock`)).toBe(false)
  await (await lockOutput(output)).release()
})

test.each([
  ['a process that is gone', () => ({ pid: gone(), host: hostname() })],
  ['a process whose number another one has now', () => ({ pid: process.pid, host: hostname() })],
])('the lock of %s is taken over', async (_, owner) => {
  await leave(owner())
  await (await lockOutput(output)).release()
  expect(existsSync(`${output}.lock`)).toBe(false)
})

test('a lock from another machine is honoured while it is touched', async () => {
  await leave({ pid: 1, host: 'elsewhere' })
  await expect(lockOutput(output)).rejects.toMatchObject({ code: 'ERR_BATCH_OUTPUT' })
  const past = new Date(Date.now() - 120_000)
  await utimes(`${output}.lock`, past, past)
  await (await lockOutput(output)).release()
})

test('one that was cut off while it was written is taken over', async () => {
  await leave('')
  await (await lockOutput(output)).release()
  expect(existsSync(`${output}.lock`)).toBe(false)
})

test('of many at once, one gets it', async () => {
  await leave({ pid: gone(), host: hostname() })
  const all = await Promise.allSettled(Array.from({ length: 10 }, () => lockOutput(output)))
  const locks = all.flatMap((each) => (each.status === 'fulfilled' ? [each.value] : []))
  expect(locks.length).toBe(1)
  expect(await readFile(`${output}.lock`, 'utf8')).toContain(`"pid":${process.pid}`)
  await locks[0]!.release()
})

test('a directory that cannot be written is told', async () => {
  await expect(lockOutput(join(directory, 'none', 'out.jsonl'))).rejects.toMatchObject({ code: 'ERR_FILE_ACCESS' })
})
