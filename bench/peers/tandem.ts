/** Tandem's process: the public interface as any program uses it. */
import { createSampler } from '../../src/sampling/sampler.ts'
import { type Engine, loadModel, type Session } from '../../src/index.ts'
import type { Reply, Request } from './protocol.ts'

let engine: Engine | undefined
const sessions = new Map<number, Session>()
const sampler = createSampler()

async function timed(work: () => Promise<readonly number[]>): Promise<Reply> {
  const start = performance.now()
  const best = await work()
  return { ms: performance.now() - start, best }
}

function sessionOf(id: number): Session {
  const session = sessions.get(id) ?? engine!.session()
  sessions.set(id, session)
  return session
}

async function decode(ids: readonly number[], tokens: readonly (readonly number[])[]): Promise<Reply> {
  const lengths = ids.map((id) => sessionOf(id).tokens.length)
  const one = async (id: number, sequence: readonly number[]): Promise<number[]> => {
    const best: number[] = []
    for (const token of sequence) best.push(sampler.sample(await sessionOf(id).decodeBest(token, sampler.needs), []))
    return best
  }
  const reply = await timed(async () => (await Promise.all(ids.map((id, index) => one(id, tokens[index]!)))).flat())
  for (const [index, id] of ids.entries()) sessionOf(id).truncate(lengths[index]!)
  return reply
}

async function answer(request: Request): Promise<Reply> {
  switch (request.kind) {
    case 'load': {
      const { path, threads, contextTokens, sequences, ubatch } = request
      const start = performance.now()
      engine = await loadModel(path, { threads, contextTokens, sequences, ubatch, kvTokens: contextTokens * sequences })
      const about = `Tandem on Node ${process.version}, ${threads} threads`
      return { ms: performance.now() - start, about, vocabulary: engine.model.hyper.vocabulary }
    }
    case 'prompt': {
      const session = sessionOf(request.id)
      session.truncate(0)
      return timed(async () => [sampler.sample(await session.syncBest(request.tokens, sampler.needs), [])])
    }
    case 'decode':
      return decode(request.ids, request.tokens)
    default: {
      const { user, system } = process.cpuUsage()
      return { ms: (user + system) / 1000 }
    }
  }
}

process.on('message', (request: Request) => {
  answer(request).then(
    (reply) => process.send!(reply),
    (error: unknown) => process.send!({ ms: 0, error: String(error) } satisfies Reply),
  )
})
process.on('disconnect', () => process.exit())
