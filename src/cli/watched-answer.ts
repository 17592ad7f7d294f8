/** An answer as it comes, and on a terminal how far it is: reading a long prompt, and writing where nobody sees the text. */
import type { Session } from '../engine/engine.ts'
import type { Delta, GenerateOptions, Prompt } from '../engine/generate.ts'
import { PREFILL_BAR_MS } from './engine-options.ts'
import type { Io } from './io.ts'
import { countText } from './text.ts'

/** Generates under a bar. `isSeen`: the text goes to a terminal as it comes. Errors as of `Session.generate`. */
export async function* watchedAnswer(
  session: Session,
  prompt: Prompt,
  options: GenerateOptions,
  io: Io,
  isSeen: boolean,
): AsyncGenerator<Delta, void, undefined> {
  const bar = io.bar('reading the prompt', PREFILL_BAR_MS)
  const onPrefill = (done: number, total: number): void => bar.update(done, total, 'tokens')
  let tokens = 0
  let start = 0
  const answering = (): string => {
    const seconds = (performance.now() - start) / 1000
    return `answering: ${countText(tokens)} tokens, ${(tokens / seconds).toFixed(1)} tokens/s`
  }
  try {
    for await (const delta of session.generate(prompt, { ...options, onPrefill })) {
      if (isSeen) bar.end()
      else if (tokens++ === 0) {
        start = performance.now()
        bar.show(answering)
      }
      yield delta
    }
  } finally {
    bar.end()
  }
}
