/** Tells of an engine's steps: a message for each where a program listens, a line for about a second of them where a person debugs. */
import { type MessageChannel, messageChannel } from '../diagnostics/channels.ts'
import { debugLog } from '../diagnostics/debug.ts'

/** A step that has ended: a message of the channel `tandem:step`. */
export interface StepMessage {
  /** From 1, an engine's own. */
  readonly step: number
  /** Tokens evaluated, the sequences they belong to, and positions whose logits were read. */
  readonly tokens: number
  readonly sequences: number
  readonly outputs: number
  /** From its publication until its end was known, ms: the steps before it included, where several are in flight. */
  readonly ms: number
  /** False when it was abandoned. */
  readonly isDone: boolean
}

const channel: MessageChannel<StepMessage> = messageChannel('tandem:step')
const debug = debugLog('engine')

/** Between two lines of the log, ms. */
const LINE_MS = 1000

const EMPTY = { steps: 0, tokens: 0, ms: 0, abandoned: 0 }

/** See the file's header. */
export class StepWatch {
  /** Steps since the last line. */
  #log = { ...EMPTY }
  #lineAt = -Infinity

  /** When a step that begins now begins; undefined when nobody wants to know. */
  begin(): number | undefined {
    return channel.hasSubscribers || debug ? performance.now() : undefined
  }

  /** A step has ended that has a beginning. */
  end(message: StepMessage): void {
    if (channel.hasSubscribers) channel.publish(message)
    if (!debug) return
    const log = this.#log
    log.steps++
    log.tokens += message.tokens
    log.ms += message.ms
    if (!message.isDone) log.abandoned++
    const now = performance.now()
    if (now - this.#lineAt < LINE_MS) return
    const { step, tokens, sequences, outputs } = message
    const abandoned = log.abandoned > 0 ? `, ${log.abandoned} abandoned` : ''
    const all = `${log.steps} steps to step ${step}: ${log.tokens} tokens, ${(log.ms / log.steps).toFixed(1)} ms each${abandoned}`
    debug(`${all}; the last of ${tokens} tokens, ${sequences} sequences, ${outputs} outputs`)
    this.#log = { ...EMPTY }
    this.#lineAt = now
  }
}
