/** `tandem embed`: vectors of texts, one line for each, in order. */
import { stat } from 'node:fs/promises'
import { addAbortSignal } from 'node:stream'
import { type Command, Option } from 'commander'
import { isGzip, readLines, splitLines } from '../../batch/lines.ts'
import type { Pooling } from '../../engine/embed.ts'
import type { Engine } from '../../engine/engine.ts'
import { TandemError } from '../../errors.ts'
import { access } from '../../gguf/reader.ts'
import { embedAll, type Embedded, type EmbedItem, parseLines } from '../embed-lines.ts'
import { addEngineOptions, type EngineFlags, withEngine } from '../engine-options.ts'
import { isPiped } from '../input.ts'
import type { Io } from '../io.ts'
import { barText } from '../progress-bar.ts'
import { RefusalTalk } from '../refusal-talk.ts'
import { countText, shortFloat } from '../text.ts'
import { another, whole } from '../values.ts'

interface Flags extends EngineFlags {
  readonly text?: readonly string[]
  readonly file?: string
  readonly jsonl?: true
  readonly pooling: Pooling
  readonly normalize: boolean
  readonly maxConcurrency: number
  readonly json?: true
}

const CONCURRENCY = 16

/** With mean pooling every token is an output of the step that it is in, and the logits of all of them need memory. */
const OUTPUTS = 128

const HELP = `
A line of output for each text, in order: its numbers with spaces between, or with --json {"id","tokens","embedding"}. A line of --file is a text; in a
file named *.jsonl, or with --jsonl, it is {"id","text"} or "text". The id is the line's number where there is none. Blank lines are left out. A text
that cannot be embedded is told on stderr, and is an empty line or {"id","error"}; then the exit code is 1.

Examples:
  $ tandem embed --text "a fox" --text "a bear" --json
  $ tandem embed model.gguf --file texts.jsonl --pooling last --json > vectors.jsonl
  $ cut -f2 table.tsv | tandem embed model.gguf > vectors.txt
`

export function define(command: Command, io: Io): void {
  addEngineOptions(command)
    .option('-t, --text <text>', 'a text; may be given several times', another)
    .option('-f, --file <path>', 'a file of lines, gunzipped if its name ends with .gz; - or a pipe: stdin')
    .option('--jsonl', 'lines are JSON (default: those of files named *.jsonl)')
    .addOption(new Option('--pooling <how>', "mean of all tokens' states, or the last one's").choices(['mean', 'last']).default('mean'))
    .option('--normalize', 'scale every vector to length 1, so that a dot product is a cosine', true)
    .option('--no-normalize', 'leave vectors as long as they are')
    .option('--max-concurrency <n>', 'texts that are worked on at a time', whole(1, 4096), CONCURRENCY)
    .option('--json', 'a line of JSON for each text: {"id","tokens","embedding":[...]}')
    .addHelpText('after', HELP)
    .action((model: string | undefined, flags: Flags) => run(model, flags, io))
}

/** What there is to embed, what it is called, and how many bytes it has where that is known. */
interface Source {
  readonly name: string
  readonly bytes?: number
  readonly items: () => AsyncIterable<EmbedItem> | Iterable<EmbedItem>
}

/** The texts of the options or of stdin. Throws `ERR_ARGUMENT`, `ERR_FILE_ACCESS`. */
async function sourceOf({ text: texts, file, jsonl }: Flags, io: Io): Promise<Source> {
  if (texts && file !== undefined) throw new TandemError('ERR_ARGUMENT', '--text and --file cannot go together')
  if (texts) return { name: '--text', items: () => texts.map((text, index) => ({ id: index + 1, line: index + 1, end: 0, text })) }
  if (file === '-' || (file === undefined && isPiped())) {
    return { name: 'stdin', items: () => parseLines(splitLines(addAbortSignal(io.signal, process.stdin)), jsonl === true) }
  }
  if (file === undefined) throw new TandemError('ERR_ARGUMENT', 'there is no text: pass --text "...", --file, or pipe lines to stdin')
  // before a large model is loaded; what is not a regular file has no size
  const { size } = await access(file, () => stat(file))
  const isJson = jsonl === true || /\.(jsonl|ndjson)(\.gz)?$/.test(file)
  const items = (): AsyncIterable<EmbedItem> => parseLines(readLines(file, undefined, io.signal), isJson)
  return { name: file, items, ...(isGzip(file) || size === 0 ? {} : { bytes: size }) }
}

async function run(model: string | undefined, flags: Flags, io: Io): Promise<void> {
  const { pooling, maxConcurrency } = flags
  const source = await sourceOf(flags, io)
  const outputs = pooling === 'mean' ? Math.max(OUTPUTS, maxConcurrency) : undefined
  await withEngine(model, flags, io, (engine) => embed(engine, source, flags, io), { sequences: maxConcurrency, outputs })
}

async function embed(engine: Engine, { name, bytes, items }: Source, flags: Flags, io: Io): Promise<void> {
  const { pooling, normalize, json } = flags
  const failures = new RefusalTalk(name, io)
  const counts = { texts: 0, failed: 0, tokens: 0 }
  const start = performance.now()
  await io.during('embedding', async (bar) => {
    for await (const embedded of embedAll(engine, items(), { pooling, normalize, signal: io.signal })) {
      counts.texts++
      if ('error' in embedded) {
        counts.failed++
        failures.tell({ line: embedded.line, message: embedded.error.message })
      } else counts.tokens += embedded.tokens
      await io.write(json ? `${JSON.stringify(jsonOf(embedded))}\n` : lineOf(embedded))
      const { end } = embedded
      bar.show((label) => `${bytes === undefined ? label : barText(label, end, bytes, 'bytes')}, ${countText(counts.texts)} texts`)
    }
  })
  failures.end()
  const seconds = (performance.now() - start) / 1000
  const speed = `${countText(counts.tokens)} tokens in ${seconds.toFixed(1)} s (${(counts.tokens / seconds).toFixed(1)}/s)`
  io.talk(
    `${countText(counts.texts)} texts: ${countText(counts.texts - counts.failed)} embedded, ${countText(counts.failed)} failed, ${speed}`,
  )
  if (counts.failed > 0) {
    throw new TandemError('ERR_BATCH_FAILED', `${countText(counts.failed)} of ${countText(counts.texts)} texts could not be embedded`)
  }
}

function jsonOf(embedded: Embedded): object {
  const { id, line } = embedded
  if ('error' in embedded) return { id, error: { ...embedded.error, line } }
  return { id, tokens: embedded.tokens, embedding: Array.from(embedded.vector, shortFloat) }
}

const lineOf = (embedded: Embedded): string => ('error' in embedded ? '\n' : `${Array.from(embedded.vector, shortFloat).join(' ')}\n`)
