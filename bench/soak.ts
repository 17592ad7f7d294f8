/**
 * Does it last: decodes for a long time and tells, every thousand tokens, the speed and the memory of the host and of the GPU.
 * `npm run bench:soak -- MODEL.gguf --pipeline hybrid --tokens 20000`
 *
 * Sessions of 1,000 tokens follow each other, so blocks of the KV cache are taken and given back; speeds are those of whole sessions.
 */
import { execFileSync } from 'node:child_process'
import { parseArgs } from 'node:util'
import { loadModel } from '../src/index.ts'
import { createRandom } from '../src/sampling/random.ts'
import { openResults } from './support/results.ts'
import { digits, spread } from './support/statistics.ts'

const SESSION_TOKENS = 1000

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    pipeline: { type: 'string', default: 'cpu' },
    threads: { type: 'string' },
    tokens: { type: 'string', default: '20000' },
    save: { type: 'boolean', default: false },
  },
})
const [path] = positionals
if (path === undefined || !(Number(values.tokens) >= 2 * SESSION_TOKENS))
  throw new Error('usage: bench/soak.ts MODEL.gguf [--pipeline P] [--tokens N >= 2000]')

const MIB = 2 ** 20

/** Memory in use on the first GPU, MiB; undefined without one. */
function gpuMib(): number | undefined {
  try {
    return Number(
      execFileSync('nvidia-smi', ['--query-gpu=memory.used', '--format=csv,noheader,nounits'], { encoding: 'utf8' }).split('\n')[0],
    )
  } catch {
    return undefined
  }
}

const results = openResults('soak', values.save, { model: path, pipeline: values.pipeline })
const random = createRandom(1)
await using engine = await loadModel(path, {
  pipeline: values.pipeline,
  threads: values.threads === undefined ? undefined : Number(values.threads),
  sequences: 1,
})
const { vocabulary } = engine.model.hyper
const speeds: number[] = []
const memory: { readonly rss: number; readonly gpu: number | undefined }[] = []
for (let done = 0; done < Number(values.tokens); done += SESSION_TOKENS) {
  const session = engine.session()
  await session.sync([1])
  const start = performance.now()
  for (let token = 0; token < SESSION_TOKENS; token++) await session.decode(Math.floor(random() * vocabulary))
  speeds.push((SESSION_TOKENS * 1000) / (performance.now() - start))
  await session.close()
  memory.push({ rss: Math.round(process.memoryUsage.rss() / MIB), gpu: gpuMib() })
  const { rss, gpu } = memory.at(-1)!
  results.print(`${done + SESSION_TOKENS} tokens  ${digits(speeds.at(-1)!)} tokens/s  host ${rss} MiB  GPU ${gpu ?? '-'} MiB`)
  results.record({ kind: 'session', tokens: done + SESSION_TOKENS, speed: speeds.at(-1), rssMib: rss, gpuMib: gpu })
}
const quarter = Math.ceil(speeds.length / 4)
const drift = spread(speeds.slice(-quarter)).median / spread(speeds.slice(0, quarter)).median - 1
// the first session warms everything up
const [first, last] = [memory[1]!, memory.at(-1)!]
results.print(`speed of the last quarter against the first: ${(drift * 100).toFixed(1)} %`)
results.print(`memory since the second session: host ${last.rss - first.rss} MiB, GPU ${(last.gpu ?? 0) - (first.gpu ?? 0)} MiB`)
results.record({ kind: 'soak', drift, hostMib: last.rss - first.rss, gpuMib: (last.gpu ?? 0) - (first.gpu ?? 0) })
results.end()
