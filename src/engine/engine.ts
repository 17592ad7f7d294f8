/**
 * The engine: a loaded model, its sessions, and the executor that computes their steps.
 *
 *     loadModel --> open --close()--> closed        a failed executor leaves it open: every call rejects with the reason until close()
 */
import { KV_BLOCK_TOKENS } from '../abi/kernels.ts'
import { TandemError } from '../errors.ts'
import type { Model } from '../model/types.ts'
import type { Programs } from '../pipeline/program.ts'
import type { Plan } from '../placement/types.ts'
import type { StageTimes } from '../trace/stage-times.ts'
import { traceJson, type TraceRow } from '../trace/trace-event.ts'
import { type ChatTemplate, createChatTemplate } from '../text/chat-template.ts'
import { createTokenizer, type Tokenizer } from '../text/tokenizer.ts'
import type { UserStageResults } from '../user-stages/results.ts'
import { type EmbedOptions, embedTexts } from './embed.ts'
import { type Delta, type Finish, generate, type GenerateOptions, type Prompt, type TextTools } from './generate.ts'
import { watched } from './generate-watch.ts'
import { KvBlocks } from './kv-blocks.ts'
import { type Profile, Profiler } from './profile.ts'
import { type Continuation, score, type Score, type ScoreOptions } from './score.ts'
import { SequenceState, type SessionHost } from './session.ts'
import { type StepExecutor, StepLoop } from './step-loop.ts'
import { StepTimeline } from './step-timeline.ts'

/** What the engine needs of user stages. */
export interface UserStages {
  get(name: string): UserStageResults | undefined
  failureOf(step: number): TandemError | undefined
}

/** An executor that the engine owns. */
export interface EngineExecutor extends StepExecutor {
  readonly failure: TandemError | undefined
  /** Times of the program's calls, if it was asked to record them. */
  readonly stageTimes?: StageTimes | undefined
  /** What its threads and devices did when; empty unless it was asked to record it. */
  readonly traceRows: readonly TraceRow[]
  /** Of a pipeline with user stages: what their functions tell, and why they abandoned a step. */
  readonly userStages?: UserStages | undefined
  /** f32[hidden] of an output of the last completed step, after the model's last norm, if the step asked for it; a view as `logits` gives. */
  hidden(row: number): Float32Array<SharedArrayBuffer>
  /** Also ends a step in flight: `whenCompleted` rejects. */
  close(): Promise<void>
}

/** What an engine is made of. */
export interface EngineParts {
  readonly model: Model
  readonly plan: Plan
  readonly programs: Programs
  readonly executor: EngineExecutor
  /** Events of the main thread to be recorded for a trace. Default 0: none. */
  readonly traceEvents?: number
}

/** A whole answer. */
export interface Answer extends Finish {
  readonly text: string
}

/** A sequence that speaks text: see `SequenceState` for tokens. */
export class Session extends SequenceState {
  readonly #text: TextTools
  readonly #model: string

  constructor(host: SessionHost, text: TextTools, model: string) {
    super(host)
    this.#text = text
    this.#model = model
  }

  /**
   * Continues from a prompt: text (a user's message where the model has a chat template), a conversation, or token ids. What the prompt has
   * in common with the session's tokens is not computed again. Throws `ERR_CONTEXT_OVERFLOW`, `ERR_KV_EXHAUSTED`, `ERR_TEMPLATE`,
   * `ERR_ARGUMENT`, `ERR_ABORTED`, `ERR_BUSY`, `ERR_CLOSED`.
   */
  generate(prompt: Prompt, options: GenerateOptions = {}): AsyncGenerator<Delta, void, undefined> {
    return watched(generate(this, this.#text, prompt, options), this.#model)
  }

  /**
   * How likely a continuation is after a prompt, taken as in `generate`; the session keeps both. Continuations of one prompt are best scored one after
   * the other in one session: the prompt is evaluated once. Throws what `generate` throws.
   */
  score(prompt: Prompt, continuation: Continuation, options: ScoreOptions = {}): Promise<Score> {
    return score(this, this.#text, prompt, continuation, options)
  }
}

/** See the file's header. Made by `loadModel`. */
export class Engine {
  readonly model: Model
  readonly plan: Plan
  readonly programs: Programs
  readonly #executor: EngineExecutor
  readonly #profiler: Profiler | undefined
  readonly #steps: StepTimeline | undefined
  readonly #loop: StepLoop
  readonly #blocks: KvBlocks
  readonly #sessions = new Set<SequenceState>()
  readonly #text: TextTools
  #closed: Promise<void> | undefined

  /** @internal */
  constructor(parts: EngineParts) {
    this.model = parts.model
    this.plan = parts.plan
    this.programs = parts.programs
    this.#executor = parts.executor
    const { limits, step } = parts.plan
    const { stageTimes } = parts.executor
    this.#profiler = stageTimes && parts.programs.wasm && new Profiler(parts.executor, stageTimes, parts.programs.wasm)
    const executor = this.#profiler ?? parts.executor
    const { traceEvents = 0 } = parts
    if (traceEvents > 0) this.#steps = new StepTimeline(executor, traceEvents)
    const { userStages } = parts.executor
    this.#loop = new StepLoop(this.#steps ?? executor, limits, step, userStages && ((number) => userStages.failureOf(number)))
    this.#blocks = new KvBlocks(limits.kvTokens / KV_BLOCK_TOKENS)
    this.#text = lazyText(parts.model)
  }

  /** The tokenizer of the file's vocabulary, built on first use. Throws `ERR_TOKENIZER_UNSUPPORTED`, `ERR_TOKENIZER_INVALID`. */
  get tokenizer(): Tokenizer {
    return this.#text.tokenizer
  }

  /** The file's chat template, if it has one. Throws `ERR_TEMPLATE`. */
  get chatTemplate(): ChatTemplate | undefined {
    return this.#text.chatTemplate
  }

  /** A new, empty session. Throws `ERR_CLOSED`, and `ERR_KV_EXHAUSTED` when `sequences` sessions are open. */
  session(): Session {
    this.#assertOpen()
    const { sequences, contextTokens, outputs } = this.plan.limits
    const executor = this.#executor
    if (this.#sessions.size >= sequences) {
      throw new TandemError(
        'ERR_KV_EXHAUSTED',
        `${sequences} sessions are open, which is the engine's limit: close one or raise 'sequences'`,
      )
    }
    const session = new Session(
      {
        loop: this.#loop,
        blocks: this.#blocks,
        contextTokens,
        outputs,
        best: executor.best ? toldBest(this.plan) : 0,
        vocabulary: this.model.hyper.vocabulary,
        hidden: (row) => executor.hidden(row),
        assertOpen: () => this.#assertOpen(),
        release: (each) => void this.#sessions.delete(each),
      },
      this.#text,
      this.model.name,
    )
    this.#sessions.add(session)
    return session
  }

  /** One whole answer, in a session of its own. Errors as of `Session.generate`. */
  async generate(prompt: Prompt, options: GenerateOptions = {}): Promise<Answer> {
    const session = this.session()
    try {
      let text = ''
      for await (const delta of session.generate(prompt, options)) {
        text += delta.text
        if (delta.finish) return { text, ...delta.finish }
      }
      throw new TandemError('ERR_INTERNAL', 'a generation ended without saying how')
    } finally {
      await session.close()
    }
  }

  /**
   * How likely each continuation is after the prompt, which is evaluated once for all of them. In a session of its own. Errors as of
   * `Session.score`.
   */
  async score(prompt: Prompt, continuations: readonly Continuation[], options: ScoreOptions = {}): Promise<Score[]> {
    const session = this.session()
    try {
      const scores: Score[] = []
      for (const continuation of continuations) scores.push(await session.score(prompt, continuation, options))
      return scores
    } finally {
      await session.close()
    }
  }

  /**
   * An embedding of each text: f32[hidden], pooled over the model's last hidden states. Throws `ERR_ARGUMENT`, and what `Session.generate` throws.
   */
  async embed(texts: readonly (string | readonly number[])[], options: EmbedOptions = {}): Promise<Float32Array[]> {
    const free = this.plan.limits.sequences - this.#sessions.size
    return embedTexts(
      { session: () => this.session(), tokenizer: () => this.tokenizer },
      texts,
      this.model.hyper.hidden,
      Math.max(1, free),
      options,
    )
  }

  /** What the function of one of the pipeline's user stages returns. Throws `ERR_ARGUMENT` for a name that none of them has. */
  userStage<Value = unknown>(name: string): UserStageResults<Value> {
    const results = this.#executor.userStages?.get(name)
    if (results) return results as UserStageResults<Value>
    throw new TandemError('ERR_ARGUMENT', `pipeline '${this.plan.pipeline.name}' has no user stage '${name}'`)
  }

  /** Where the time of the steps went; undefined unless loaded with `profile`. Complete between two calls. */
  profile(): Profile | undefined {
    return this.#profiler?.profile()
  }

  /** Forgets the steps recorded so far, such as those of a warm-up; only between two calls. */
  resetProfile(): void {
    this.#profiler?.reset()
  }

  /**
   * What every worker and every GPU stream did when, as pieces of JSON text in the Trace Event Format (ui.perfetto.dev shows it); undefined unless
   * loaded with `trace`. Complete between two calls.
   */
  trace(): Iterable<string> | undefined {
    return this.#steps && traceJson([this.#steps.row, ...this.#executor.traceRows])
  }

  /** Aborts what is running, ends the workers and gives the memory back. May be called again. */
  close(): Promise<void> {
    this.#closed ??= this.#close()
    return this.#closed
  }

  async #close(): Promise<void> {
    // Both at once: a step that never ends must not keep its workers from being ended.
    await Promise.all([this.#loop.stop(new TandemError('ERR_CLOSED', 'the engine was closed')), this.#executor.close()])
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  #assertOpen(): void {
    if (this.#closed) throw new TandemError('ERR_CLOSED', 'the engine has been closed')
    if (this.#executor.failure) throw this.#executor.failure
  }
}

/**
 * How many of the best logits the executor can tell, of which the pool knows the best one; 0 where a function of the user sees the logits: they must be
 * there for it, and it may change them.
 */
function toldBest({ cuda, pipeline }: Plan): number {
  const isSeen = pipeline.userStages?.some(({ stage, when }) => stage === 'head' && when === 'after')
  if (isSeen) return 0
  return cuda ? cuda.shape.top : 1
}

function lazyText(model: Model): TextTools {
  let tokenizer: Tokenizer | undefined
  let template: { readonly value: ChatTemplate | undefined } | undefined
  const { metadata } = model.file
  return {
    get tokenizer() {
      tokenizer ??= createTokenizer(metadata)
      return tokenizer
    },
    get chatTemplate() {
      template ??= { value: createChatTemplate(metadata, this.tokenizer) }
      return template.value
    },
  }
}
