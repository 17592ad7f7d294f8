/** A Redis that is not there, refuses, hangs, forgets, or belongs to others: clear errors in bounded time, no password in them, and the job goes on. */
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { createServer } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { QueueConnection } from '../../src/queue/connection.ts'
import { ownerKey, PROTOCOL_KEY } from '../../src/queue/keys.ts'
import { type BatchFiles, batchFiles, idOf, readOutput } from '../fixtures/batch-files.ts'
import { echoing, produce, startWorker } from '../fixtures/queue-parties.ts'
import { freePort, hasRedis, startRedis } from '../fixtures/redis.ts'
import { cli, cliModels, startCli } from '../unit/cli/cli-process.ts'

let models: Awaited<ReturnType<typeof cliModels>>
let files: BatchFiles
let input: string
const lines = Array.from({ length: 60 }, (_, index) => ({ id: `t${index}`, prompt: `tell me about ${index}` }))
beforeAll(async () => {
  models = await cliModels()
  files = await batchFiles()
  input = await files.write('in.jsonl', lines)
})
afterAll(async () => {
  await models[Symbol.asyncDispose]()
  await files[Symbol.asyncDispose]()
})

const expectComplete = async (output: string): Promise<void> =>
  expect((await readOutput(output)).map((line) => String(idOf(line))).sort()).toEqual(lines.map(({ id }) => id).sort())

/** Every command that connects. */
const commands = (url: string): (readonly string[])[] => [
  ['batch', models.tiny, input, '-o', files.path('never.jsonl'), '--producer', '--queue', url],
  ['worker', models.tiny, '--queue', url],
  ['queue', '--queue', url],
]

describe('without a server', () => {
  test('nobody listens: all commands say so within seconds', async () => {
    const started = performance.now()
    for (const result of await Promise.all(commands('redis://:sesame@127.0.0.1:1').map((args) => cli(args)))) {
      expect(result).toEqual({
        code: 1,
        stdout: '',
        stderr: 'error ERR_QUEUE_CONNECTION: redis://127.0.0.1:1/0: nothing listens there; is Redis running?\n',
      })
    }
    expect(performance.now() - started).toBeLessThan(15_000)
  })

  test('wrong URLs and options that do not go together are wrong usage', async () => {
    const wrong = await cli(['queue', '--queue', 'http://:sesame@host'])
    expect(wrong).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(/^error ERR_ARGUMENT: --queue: (?!.*sesame).*redis:\/\//) as string,
    })
    const batch = ['batch', input, '-o', files.path('never.jsonl')]
    for (const [args, message] of [
      [[...batch, '--producer'], /--queue: must be given with --producer/],
      [[...batch, '--queue', 'redis://h'], /--queue: must be given together with --producer/],
      [[...batch, '--queue', 'redis://h', '--producer', '--threads', '2'], /--threads: must be given to tandem worker/],
      [['worker'], /--queue: must be given/],
    ] as const) {
      expect(await cli(args)).toMatchObject({ code: 2, stdout: '', stderr: expect.stringMatching(message) as string })
    }
  })

  test('one that accepts and says nothing', async () => {
    const server = createServer().listen(0, '127.0.0.1')
    await once(server, 'listening')
    const { port } = server.address() as { port: number }
    const started = performance.now()
    await expect(QueueConnection.open({ url: `redis://127.0.0.1:${port}` })).rejects.toMatchObject({ code: 'ERR_QUEUE_CONNECTION' })
    expect(performance.now() - started).toBeLessThan(8000)
    server.close()
  })
})

describe.skipIf(!hasRedis)('a server', () => {
  test('with a password: a wrong one is told at once and not shown, the right one works, also from the environment', async () => {
    await using redis = await startRedis(['--requirepass', 'right'], ':right@')
    for (const credentials of [':sesame@', '']) {
      const started = performance.now()
      const url = redis.url.replace(':right@', credentials)
      const shown = redis.url.replace(':right@', '')
      expect(await cli(['queue', '--queue', url])).toEqual({
        code: 1,
        stdout: '',
        stderr: `error ERR_QUEUE_CONNECTION: ${shown}/0: the user or the password is not accepted\n`,
      })
      expect(performance.now() - started).toBeLessThan(5000)
    }
    expect(await cli(['queue'], { env: { TANDEM_QUEUE: `${redis.url}/3` } })).toMatchObject({ code: 0, stdout: 'no jobs\n\nno workers\n' })
    expect(await cli(['queue', '--queue', `${redis.url}/99`])).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/there is no database of that number\n$/) as string,
    })
  })

  const hasTls = spawnSync('openssl', ['version']).status === 0
  test.skipIf(!hasTls)('with TLS: a certificate that nobody vouches for is refused, one of a known authority is not', async () => {
    const [key, certificate] = [files.path('key.pem'), files.path('cert.pem')]
    const subject = ['-subj', '/CN=localhost', '-addext', 'subjectAltName=IP:127.0.0.1,DNS:localhost']
    const made = spawnSync('openssl', [
      'req',
      '-x509',
      '-newkey',
      'rsa:2048',
      '-nodes',
      '-days',
      '2',
      ...subject,
      '-keyout',
      key,
      '-out',
      certificate,
    ])
    expect(made.status).toBe(0)
    const port = await freePort()
    const tls = ['--tls-port', `${port}`, '--tls-cert-file', certificate, '--tls-key-file', key, '--tls-auth-clients', 'no']
    await using _redis = await startRedis(tls)
    const args = ['queue', '--queue', `rediss://localhost:${port}`]
    expect(await cli(args)).toMatchObject({ code: 1, stderr: expect.stringMatching(/^error ERR_QUEUE_CONNECTION: .*TLS failed/) as string })
    expect(await cli(args, { env: { NODE_EXTRA_CA_CERTS: certificate } })).toMatchObject({ code: 0, stderr: '' })
  })

  test('that may throw things away is warned of', async () => {
    await using redis = await startRedis(['--maxmemory', '100mb', '--maxmemory-policy', 'allkeys-lru'])
    const result = await cli(['queue', '--queue', redis.url])
    expect(result).toMatchObject({ code: 0, stderr: expect.stringMatching(/maxmemory-policy is allkeys-lru.*set noeviction\n$/) as string })
  })

  test('with another version: refused while that is there, and no longer', async () => {
    await using redis = await startRedis()
    const { redis: client } = await redis.connect()
    await client.set(PROTOCOL_KEY, '99')
    await client.sadd('tandem:workers', 'them')
    await client.set('tandem:worker:them', JSON.stringify({ host: 'there', modelId: 'm', version: '9.9.9' }))
    const expected = /^error ERR_QUEUE_VERSION: .*Tandem 9\.9\.9 with protocol 99, this is protocol \d+; /
    for (const args of commands(redis.url).slice(0, 2)) {
      expect(await cli(args)).toMatchObject({ code: 1, stderr: expect.stringMatching(expected) as string })
    }
    await client.del('tandem:worker:them')
    const running = produce(redis, { input, output: files.path('versions.jsonl') })
    while ((await client.get(PROTOCOL_KEY)) === '99') await sleep(20)
    const worker = await startWorker(redis, echoing(1))
    expect(await running).toMatchObject({ succeeded: 60 })
    await worker.end()
  })

  test('that is started anew in the middle of a job, and has forgotten everything', async () => {
    await using redis = await startRedis()
    const output = files.path('restarted.jsonl')
    const workers = [await startWorker(redis, echoing(100)), await startWorker(redis, echoing(100))]
    const running = produce(redis, { input, output })
    await sleep(500)
    await redis.stop()
    await sleep(1000)
    await redis.start()
    expect(await running).toMatchObject({ lines: 60, succeeded: 60, failed: 0 })
    await expectComplete(output)
    for (const worker of workers) await worker.end()
  })

  test.each(['stops', 'hangs'])(
    'that %s for longer than the deadline ends everything, and the job goes on when it is back',
    async (how) => {
      await using redis = await startRedis()
      const output = files.path(`${how}.jsonl`)
      const talk: string[] = []
      const patience = { reconnectMs: 1500, onTalk: (line: string) => void talk.push(line) }
      const worker = await startWorker(redis, echoing(100), {}, patience)
      const running = produce(redis, { input, output }, {}, patience)
      running.catch(() => undefined)
      await sleep(500)
      const started = performance.now()
      if (how === 'stops') await redis.stop()
      else redis.freeze()
      await expect(running).rejects.toMatchObject({
        code: 'ERR_QUEUE_CONNECTION',
        message: expect.stringMatching(/no answer for \d+ s/) as string,
      })
      await expect(worker.result).rejects.toMatchObject({ code: 'ERR_QUEUE_CONNECTION' })
      expect(performance.now() - started).toBeLessThan(15_000)
      if (how === 'stops') expect(talk.filter((line) => /the connection is lost; trying again for 2 s/.test(line))).toHaveLength(2)
      if (how === 'stops') await redis.start()
      else redis.thaw()
      // the test's process lives on and would be taken for the producer's
      await (await redis.connect()).redis.del(ownerKey('job'))
      const again = await startWorker(redis, echoing(1))
      expect(await produce(redis, { input, output })).toMatchObject({ succeeded: 60, failed: 0 })
      await again.end()
      await expectComplete(output)
    },
  )

  test('the commands end, too, when it is gone for good', async () => {
    await using redis = await startRedis()
    const patience = ['--reconnect', '1', '-q']
    const [batch, worker] = commands(redis.url)
    const parties = [startCli([...batch!, ...patience]), startCli([...worker!, '--threads', '1', '--grace', '60', ...patience])]
    const connection = await redis.connect()
    while ((await connection.redis.exists('tandem:workers')) === 0) await sleep(50)
    await redis.stop()
    for (const { result } of parties) {
      expect(await result).toMatchObject({
        code: 1,
        stderr: expect.stringMatching(/^error ERR_QUEUE_CONNECTION: .*no answer for/) as string,
      })
    }
  })
})

describe.skipIf(!hasRedis)('a worker process', () => {
  test.each(['SIGTERM', 'SIGINT'] as const)('ends well on %s', async (signal) => {
    await using redis = await startRedis()
    const { child, result } = startCli(['worker', models.tiny, '--queue', redis.url, '--threads', '1'])
    const { redis: client } = await redis.connect()
    while ((await client.exists('tandem:workers')) === 0) await sleep(50)
    child.kill(signal)
    expect(await result).toMatchObject({
      code: 0,
      stdout: '',
      stderr: expect.stringMatching(/0 lines answered, 0 failed, 0 given back/) as string,
    })
    expect(await client.exists('tandem:workers')).toBe(0)
  })

  test('ends at once when it is asked twice', async () => {
    await using redis = await startRedis()
    const output = files.path('twice.jsonl')
    const batch = startCli(['batch', models.tiny, input, '-o', output, '--queue', redis.url, '--producer', '-q'])
    const { child, result } = startCli(['worker', models.tiny, '--queue', redis.url, '--threads', '1', '--grace', '60', '--lock', '1'])
    const { redis: client } = await redis.connect()
    while ((await client.keys('tandem-queue:*:active')).length === 0) await sleep(20)
    child.kill('SIGINT')
    await sleep(50)
    child.kill('SIGINT')
    const started = performance.now()
    await result
    expect(performance.now() - started).toBeLessThan(3000)
    // its lines are taken over
    const other = startCli(['worker', models.tiny, '--queue', redis.url, '--threads', '1', '--lock', '1', '-q'])
    expect(await batch.result).toMatchObject({ code: 0, stderr: '' })
    other.child.kill('SIGTERM')
    expect(await other.result).toMatchObject({ code: 0, stderr: '' })
    await expectComplete(output)
  })

  test('dies of a line again and again: the line is given up, the others are not', { timeout: 120_000 }, async () => {
    await using redis = await startRedis()
    const poisoned = await files.write('poison.jsonl', [
      { id: 'a', prompt: 'a' },
      { id: 'p', prompt: 'poison' },
      { id: 'b', prompt: 'b' },
    ])
    const output = files.path('poison-out.jsonl')
    const job = { hasEnded: false }
    const running = produce(redis, { input: poisoned, output }).finally(() => (job.hasEnded = true))
    const script = fileURLToPath(new URL('../fixtures/queue-mortal-worker.ts', import.meta.url))
    let deaths = 0
    while (!job.hasEnded) {
      const child = spawn(process.execPath, [script, redis.url], { stdio: 'ignore' })
      const died = once(child, 'exit')
      await Promise.race([died, running])
      if (job.hasEnded) child.kill('SIGKILL')
      await died
      deaths++
    }
    expect(await running).toMatchObject({ succeeded: 2, failed: 1 })
    expect(deaths).toBeGreaterThan(5)
    const answer = (await readOutput(output)).find(({ id }) => id === 'p')
    expect(answer?.error).toMatchObject({ code: 'ERR_WORKER_DIED', line: 2 })
  })
})
