/** `tandem chat`: a conversation, on a terminal or from piped lines. One session keeps it, so that only what is new is computed. */
import type { Command } from 'commander'
import type { Engine, Session } from '../../engine/engine.ts'
import type { GenerateOptions } from '../../engine/generate.ts'
import { TandemError } from '../../errors.ts'
import { openModelFile } from '../../gguf/open.ts'
import type { ChatMessage } from '../../text/chat-template.ts'
import { addEngineOptions, type EngineFlags, modelPath, withEngine } from '../engine-options.ts'
import type { Io } from '../io.ts'
import { type Lines, pipedLines, terminalLines } from '../lines.ts'
import { errorLine } from '../report.ts'
import { addSamplingOptions, samplingOptions, type SamplingFlags } from '../sampling-options.ts'
import { watchedAnswer } from '../watched-answer.ts'

interface Flags extends EngineFlags, SamplingFlags {
  readonly system?: string
}

const HELP = '/exit or Ctrl-D ends, /clear begins anew, Ctrl-C stops an answer'

/** What a person at a terminal can do something about without starting again. */
const RECOVERABLE: ReadonlySet<string> = new Set(['ERR_CONTEXT_OVERFLOW', 'ERR_KV_EXHAUSTED', 'ERR_TEMPLATE'])

export function define(command: Command, io: Io): void {
  addSamplingOptions(addEngineOptions(command).option('--system <text>', 'a system message to begin with'))
    .addHelpText(
      'after',
      `\n${HELP}. Lines that are piped in are answered one by one.\n\nExample:\n  $ tandem chat model.gguf --system "Answer briefly."\n`,
    )
    .action((model: string | undefined, flags: Flags) => run(model, flags, io))
}

async function run(model: string | undefined, flags: Flags, io: Io): Promise<void> {
  const sampling = samplingOptions(flags)
  // known from the header alone, so before a large model is loaded
  const { metadata } = await openModelFile(modelPath(model), { signal: io.signal })
  if (!metadata.has('tokenizer.chat_template')) {
    throw new TandemError('ERR_TEMPLATE', `${modelPath(model)}: the file has no chat template; use tandem generate --raw`)
  }
  await withEngine(model, flags, io, async (engine) => {
    const isTerminal = process.stdin.isTTY
    if (isTerminal) io.talk(HELP)
    const conversation = new Conversation(engine, sampling, flags.system, io, isTerminal)
    await conversation.run(isTerminal ? terminalLines(io) : pipedLines(io))
  })
}

class Conversation {
  readonly #session: Session
  readonly #sampling: GenerateOptions
  readonly #system: string | undefined
  readonly #io: Io
  readonly #isTerminal: boolean
  #messages: ChatMessage[] = []

  constructor(engine: Engine, sampling: GenerateOptions, system: string | undefined, io: Io, isTerminal: boolean) {
    this.#session = engine.session()
    this.#sampling = sampling
    this.#system = system
    this.#io = io
    this.#isTerminal = isTerminal
    this.#clear()
  }

  #clear(): void {
    this.#messages = this.#system === undefined ? [] : [{ role: 'system', content: this.#system }]
  }

  async run(lines: Lines): Promise<void> {
    for await (const line of lines) {
      const text = line.trim()
      if (text === '/exit') return
      if (text === '/clear') this.#clear()
      else if (text !== '') await this.#turn(text)
    }
  }

  /** One message and its answer. A turn that fails leaves the conversation as it was. */
  async #turn(text: string): Promise<void> {
    const before = this.#messages
    this.#messages = [...before, { role: 'user', content: text }]
    try {
      const stopped = new AbortController()
      const answer = await this.#io.interruption.divert(this.#isTerminal ? () => stopped.abort() : undefined, () =>
        this.#answer(stopped.signal),
      )
      this.#messages.push({ role: 'assistant', content: answer })
    } catch (error) {
      this.#messages = before
      if (!this.#isTerminal || !RECOVERABLE.has(TandemError.from(error).code)) throw error
      this.#io.talk(`${errorLine(error)} (/clear begins anew)`)
    }
  }

  /** Streams an answer to its end, or to the person's Ctrl-C. */
  async #answer(stopped: AbortSignal): Promise<string> {
    const options = { ...this.#sampling, signal: AbortSignal.any([this.#io.signal, stopped]) }
    let answer = ''
    try {
      for await (const { text, finish } of watchedAnswer(this.#session, this.#messages, options, this.#io, process.stdout.isTTY)) {
        answer += text
        if (text !== '') await this.#io.write(text)
        if (finish?.finishReason === 'length') this.#io.talk('\n(cut off at the limit)')
      }
    } catch (error) {
      if (!stopped.aborted || this.#io.signal.aborted) throw error
      this.#io.talk('\n(stopped)')
    }
    await this.#io.write('\n')
    return answer
  }
}
