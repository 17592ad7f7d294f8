/** `tandem perplexity`: the mean surprise of a model at a text. */
import type { Command } from 'commander'
import type { Engine } from '../../engine/engine.ts'
import { TandemError } from '../../errors.ts'
import { logSoftmaxAt } from '../../sampling/log-softmax.ts'
import { addEngineOptions, type EngineFlags, PREFILL_BAR_MS, withEngine } from '../engine-options.ts'
import { readText } from '../input.ts'
import type { Io } from '../io.ts'
import type { ProgressBar } from '../progress-bar.ts'
import { countText, table } from '../text.ts'
import { windowsOf } from '../windows.ts'

interface Flags extends EngineFlags {
  readonly file: string
  readonly json?: true
}

export function define(command: Command, io: Io): void {
  addEngineOptions(command)
    .requiredOption('-f, --file <path>', 'a UTF-8 text file')
    .option('--json', '{"tokens","nll","perplexity"}')
    .addHelpText(
      'after',
      `
The text is cut into windows of --context tokens, each evaluated from scratch; where the file asks for a begin token, every window begins with
it. The first token of a window is not scored. nll is the mean of -ln p over the scored tokens, perplexity is e to that.

Example:
  $ tandem perplexity model.gguf --file text.txt --context 512 --json
`,
    )
    .action((model: string | undefined, flags: Flags) => run(model, flags, io))
}

async function run(model: string | undefined, flags: Flags, io: Io): Promise<void> {
  const text = await readText(flags.file, io.signal)
  await withEngine(model, flags, io, async (engine) => {
    const { tokens, nll } = await score(engine, text, flags.file, io)
    const perplexity = Math.exp(nll)
    if (flags.json) await io.writeJson({ tokens, nll, perplexity })
    else {
      await io.write(
        table([
          ['tokens', countText(tokens)],
          ['nll', nll.toFixed(6)],
          ['perplexity', perplexity.toFixed(4)],
        ]),
      )
    }
  })
}

/** Scored tokens, and the mean negative log likelihood of one, nats. */
async function score(engine: Engine, text: string, path: string, io: Io): Promise<{ tokens: number; nll: number }> {
  const { tokenizer } = engine
  const ids = tokenizer.encode(text, { addSpecial: false })
  const windows = windowsOf(ids, engine.plan.limits.contextTokens, tokenizer.addBos ? tokenizer.bos : undefined)
  const total = windows.reduce((sum, window) => sum + window.length, 0)
  if (total === 0)
    throw new TandemError('ERR_ARGUMENT', `the text in ${path} has ${ids.length} tokens, too few to score any: use a longer one`)
  const session = engine.session()
  let before = 0
  let scored = 0
  let sum = 0
  const evaluating = async (bar: ProgressBar): Promise<void> => {
    for (const window of windows) {
      const visit = (index: number, logits: Float32Array): void => {
        const next = window[index + 1]
        if (next === undefined) return
        sum -= logSoftmaxAt(logits, next)
        scored++
      }
      await session.evaluate(window, visit, { signal: io.signal, onProgress: (done) => bar.update(before + done, total, 'tokens') })
      before += window.length
    }
  }
  await io.during('evaluating', evaluating, PREFILL_BAR_MS)
  return { tokens: scored, nll: sum / scored }
}
