/**
 * A batch job: tasks from a file, answers to another, and never a line lost or doubled.
 *
 *     open: lock, check every line, read what is answered already --> run: generate what is missing --> close
 *
 * What makes it resumable is that a line of the output is the only record of work done: it is there whole, or the task is done again.
 */
import { constants, existsSync, statSync } from 'node:fs'
import { access as accessFile, stat } from 'node:fs/promises'
import type { Engine } from '../engine/engine.ts'
import { debugLog, msSince } from '../diagnostics/debug.ts'
import { TandemError } from '../errors.ts'
import { access } from '../gguf/reader.ts'
import { resolveSampling } from '../sampling/options.ts'
import type { Answerer } from './answerer.ts'
import { answerLine, errorLine, keyOf, readAnswer } from './answers.ts'
import { EngineAnswerer } from './engine-answerer.ts'
import { Lanes } from './lanes.ts'
import { tellLine } from './line-channel.ts'
import { type Lock, lockOutput } from './lock.ts'
import { OutputFile } from './output-file.ts'
import { type BatchProgress, type BatchSummary, Meter } from './progress.ts'
import { type InputOptions, type OnRefusal, parsedLines, survey, type Survey, versionOf } from './survey.ts'
import { type BatchTask, isRefusal, type TaskOptions } from './task.ts'

/** Options of a job. */
export interface BatchOptions extends InputOptions {
  /** The file of answers, in order of completion; compressed when its name ends with `.gz`. What is in it already is gone on with. */
  readonly output: string
  /** Tasks that are worked on at a time. Default and most: the engine's `sequences`. */
  readonly maxConcurrency?: number | undefined
  /** What a task does not say. Default: as in `generate`. */
  readonly defaults?: TaskOptions | undefined
  /** Let tasks that begin alike share the cache: see `GenerateOptions`. Default true. */
  readonly sharePrefix?: boolean | undefined
  readonly onProgress?: ((progress: BatchProgress) => void) | undefined
  /** Called before work begins with every line that is not a task; they get an error in the output. */
  readonly onRefusal?: OnRefusal | undefined
}

const debug = debugLog('batch')

/** See the file's header. */
export class BatchJob {
  /** Lines of the input that are not blank. */
  readonly lines: number
  /** Those that are answered already. */
  readonly earlier: number
  readonly #options: BatchOptions
  readonly #survey: Survey
  readonly #output: OutputFile
  readonly #lock: Lock | undefined
  readonly #earlierFailed: number
  #isClosed = false

  private constructor(
    options: BatchOptions,
    parts: { survey: Survey; output: OutputFile; lock: Lock | undefined },
    earlier: { done: number; failed: number },
  ) {
    this.#options = options
    this.#survey = parts.survey
    this.#output = parts.output
    this.#lock = parts.lock
    this.lines = parts.survey.lines
    this.earlier = earlier.done
    this.#earlierFailed = earlier.failed
  }

  /** Everything up to the point where a model is needed. Throws `ERR_BATCH_INPUT`, `ERR_BATCH_OUTPUT`, `ERR_FILE_ACCESS`, `ERR_ARGUMENT`, `ERR_ABORTED`. */
  static async open(options: BatchOptions): Promise<BatchJob> {
    const { input, output: path, defaults = {}, onRefusal } = options
    const { maxTokens: _maxTokens, stop: _stop, raw: _raw, ...sampling } = defaults
    resolveSampling(sampling)
    await versionOf(input)
    if (await isSameFile(input, path)) throw new TandemError('ERR_ARGUMENT', `output: must be another file than the input ${input}`)
    if (existsSync(path)) await access(path, () => accessFile(path, constants.W_OK))
    // a device, such as /dev/null, is nobody's
    const lock = existsSync(path) && !statSync(path).isFile() ? undefined : await lockOutput(path)
    let output: OutputFile | undefined
    try {
      const begun = performance.now()
      const found = await survey(options, onRefusal)
      debug?.(`${input}: ${found.lines} lines, ${found.invalid} of them not tasks, checked in ${msSince(begun)}`)
      output = await OutputFile.open(path)
      const earlier = await readEarlier(output, found, options)
      debug?.(`${path}: ${earlier.done} lines are there, ${earlier.failed} of them errors; ${msSince(begun)}`)
      return new BatchJob(options, { survey: found, output, lock }, earlier)
    } catch (error) {
      await output?.close().catch(() => undefined)
      await lock?.release()
      throw error
    }
  }

  /** The summary of a job that earlier runs have completed: there is nothing to run. */
  get completed(): BatchSummary | undefined {
    return this.earlier >= this.lines ? this.#meter().summary() : undefined
  }

  /** Does what is missing. Once only. Throws `ERR_ABORTED`, `ERR_FILE_ACCESS`, `ERR_BATCH_INPUT`, `ERR_ARGUMENT`, and failures of the engine. */
  async run(engine: Engine): Promise<BatchSummary> {
    return this.runWith(new EngineAnswerer(engine, this.#options))
  }

  /** As `run`, with whatever answers; its failures end the job. */
  async runWith(answerer: Answerer): Promise<BatchSummary> {
    const { signal } = this.#options
    const meter = this.#meter()
    const stop = new AbortController()
    let failure: TandemError | undefined
    const fail = (error: unknown): void => {
      failure ??= TandemError.from(error)
      stop.abort(failure)
    }
    const onAbort = (): void => fail(new TandemError('ERR_ABORTED', 'the batch job was aborted', { cause: signal?.reason }))
    signal?.addEventListener('abort', onAbort, { once: true })
    if (signal?.aborted) onAbort()
    const lanes = new Lanes(answerer.concurrency)
    try {
      await this.#work(answerer, meter, lanes, stop.signal, fail)
    } catch (error) {
      fail(error)
    } finally {
      // an abort counts until the last line is done, also when all have begun
      await lanes.empty()
      signal?.removeEventListener('abort', onAbort)
    }
    // what is done is written whatever happened
    await this.close().catch(fail)
    const summary = meter.summary()
    debug?.(`${failure ? `ended by ${failure.code}` : 'done'}: ${JSON.stringify(summary)}`)
    if (failure) throw failure
    return summary
  }

  /** Writes what is left, and lets others have the output. May be called again. */
  async close(): Promise<void> {
    if (this.#isClosed) return
    this.#isClosed = true
    try {
      await this.#output.close()
    } finally {
      await this.#lock?.release()
    }
  }

  #meter(): Meter {
    return new Meter({ total: this.lines, earlier: this.earlier, failed: this.#earlierFailed }, this.#options.onProgress)
  }

  /** Walks the input a second time and starts what is missing, as lanes become free. */
  async #work(answerer: Answerer, meter: Meter, lanes: Lanes, signal: AbortSignal, fail: (error: unknown) => void): Promise<void> {
    const { input } = this.#options
    const { ids, version } = this.#survey
    const changed = (): TandemError =>
      new TandemError('ERR_BATCH_INPUT', `${input}: the file has changed since it was checked; start again`)
    if ((await versionOf(input)) !== version) throw changed()
    for await (const parsed of parsedLines({ ...this.#options, signal })) {
      const key = keyOf(parsed)
      if (ids.lineOf(key) !== parsed.line) throw changed()
      if (ids.isAnswered(key)) continue
      if (isRefusal(parsed)) {
        const { message, field } = parsed
        const error = { code: 'ERR_BATCH_LINE', message: `line ${parsed.line}: ${message}`, field } as const
        meter.failed()
        tellLine(parsed, { error })
        await this.#output.append(errorLine(parsed, error))
        continue
      }
      await lanes.enter()
      await answerer.admit?.(signal)
      if (signal.aborted) {
        lanes.leave()
        return
      }
      void this.#answer(answerer, parsed, meter, signal)
        .catch(fail)
        .finally(() => lanes.leave())
    }
  }

  /** Gets one answer, or the error that the task deserves, and writes it. */
  async #answer(answerer: Answerer, task: BatchTask, meter: Meter, signal: AbortSignal): Promise<void> {
    const options = { ...this.#options.defaults, ...task.options }
    const outcome = await answerer.answer({ ...task, options }, signal, (count) => meter.tokens(count))
    meter.preempted(outcome.preemptions)
    if ('error' in outcome) meter.failed()
    else meter.answered(outcome.finish.promptTokens, outcome.finish.reusedTokens)
    tellLine(task, outcome)
    await this.#output.append('error' in outcome ? errorLine(task, outcome.error) : answerLine(task, outcome, now()))
    if (!answerer.written) return
    await this.#output.saved()
    await answerer.written(task)
  }
}

/** Seconds since 1970. */
const now = (): number => Math.floor(Date.now() / 1000)

/** Marks what the output has. Throws `ERR_BATCH_OUTPUT` when it has anything else than answers to this input. */
async function readEarlier(
  output: OutputFile,
  { ids }: Survey,
  { input, limit, signal }: BatchOptions,
): Promise<{ done: number; failed: number }> {
  const counts = { done: 0, failed: 0 }
  for await (const lines of output.existing()) {
    if (signal?.aborted) throw new TandemError('ERR_ABORTED', 'the batch job was aborted', { cause: signal.reason })
    for (const { number, text } of lines) {
      const wrong = (what: string): TandemError =>
        new TandemError('ERR_BATCH_OUTPUT', `${output.path}: line ${number} ${what}; move the file away, or choose another output`)
      const answer = text === undefined ? undefined : readAnswer(text)
      if (!answer) throw wrong('is not an answer of a batch job')
      if (ids.lineOf(answer.key) === undefined) {
        // a limit leaves ids out that an earlier run may have answered
        if (limit !== undefined) continue
        throw wrong(`answers ${answer.key}, which ${input} does not have`)
      }
      if (ids.isAnswered(answer.key)) throw wrong(`answers ${answer.key} for a second time`)
      ids.setAnswered(answer.key)
      counts.done++
      if (answer.isFailed) counts.failed++
    }
  }
  return counts
}

async function isSameFile(a: string, b: string): Promise<boolean> {
  if (!existsSync(b)) return false
  const [first, second] = await access(b, () => Promise.all([stat(a), stat(b)]))
  return first.dev === second.dev && first.ino === second.ino
}

/** Works on a whole job. Errors as of `BatchJob.open` and `BatchJob.run`; lines that fail are in the summary and the output. */
export async function runBatch(engine: Engine, options: BatchOptions): Promise<BatchSummary> {
  const job = await BatchJob.open(options)
  try {
    return await job.run(engine)
  } finally {
    await job.close()
  }
}
