/** The chat template of a model file: messages to prompt text. The template language is @huggingface/jinja's. */
import * as library from '@huggingface/jinja'
import { TandemError } from '../errors.ts'
import type { Metadata } from '../gguf/types.ts'
import { strftime } from './strftime.ts'
import type { Tokenizer } from './types.ts'

interface JinjaEnvironment {
  set(name: string, value: unknown): unknown
}

interface JinjaInterpreter {
  run(program: unknown): { readonly value: unknown }
  /** Every node of a template goes through this. */
  evaluate(node: unknown, environment: unknown): unknown
}

// The library's type declarations import without file extensions, so that TypeScript finds only the names, not the classes.
const { Environment, Interpreter, Template } = library as unknown as {
  readonly Environment: new () => JinjaEnvironment
  readonly Interpreter: new (environment: JinjaEnvironment) => JinjaInterpreter
  readonly Template: new (source: string) => { readonly parsed: unknown }
}

/** One message of a conversation. Templates may read more fields than these. */
export interface ChatMessage {
  /** `system`, `user`, `assistant`, `tool`, or what else the template knows. */
  readonly role: string
  readonly content?: unknown
  readonly [field: string]: unknown
}

/** What goes into a rendering. */
export interface RenderOptions {
  /** End with the words that begin the assistant's answer. Default true. */
  readonly addGenerationPrompt?: boolean
  /** Tools in the form the model was trained on, usually JSON Schema function descriptions. Default none. */
  readonly tools?: readonly unknown[]
  /** Further variables, such as `enable_thinking`. Default none. */
  readonly variables?: Readonly<Record<string, unknown>>
}

/** A parsed chat template. */
export interface ChatTemplate {
  /** The template as it is in the file. */
  readonly source: string
  /**
   * The prompt for a conversation. Encode it with `{ addSpecial: false, parseSpecial: true }`: it spells its control tokens out.
   * Throws `ERR_TEMPLATE` with the template's own message when it refuses the messages, and `ERR_ARGUMENT` for malformed messages.
   */
  render(messages: readonly ChatMessage[], options?: RenderOptions): string
}

/** Characters. The largest templates in use have about 30,000. */
const MAX_SOURCE = 1_000_000
/** Evaluated nodes, a few seconds' worth; a template comes with an untrusted file and could loop for hours. A message needs about 100. */
const MAX_STEPS = 4_000_000
/** Items of one `range()`. */
const MAX_RANGE = 1_000_000

const failed = (message: string, cause?: unknown): TandemError => new TandemError('ERR_TEMPLATE', `chat template: ${message}`, { cause })

/**
 * The chat template in a file's metadata, parsed once; `undefined` when the file has none. `now` is the clock for `strftime_now`.
 * Throws `ERR_TEMPLATE` when it does not parse.
 */
export function createChatTemplate(metadata: Metadata, tokenizer: Tokenizer, now: () => Date = () => new Date()): ChatTemplate | undefined {
  const source = metadata.get('tokenizer.chat_template')
  if (source === undefined) return undefined
  if (typeof source !== 'string') throw failed('tokenizer.chat_template is not a string')
  if (source.length > MAX_SOURCE) throw failed(`${source.length} characters, at most ${MAX_SOURCE} are accepted`)
  const program = attempt(() => new Template(source).parsed)
  const specials = { bos_token: nameOf(tokenizer, tokenizer.bos), eos_token: nameOf(tokenizer, tokenizer.eos) }

  return {
    source,
    render(messages, { addGenerationPrompt = true, tools, variables = {} } = {}) {
      checkMessages(messages)
      return attempt(() => {
        const environment = new Environment()
        const values = { ...builtins(now), ...specials, messages, add_generation_prompt: addGenerationPrompt, ...variables }
        for (const [name, value] of Object.entries(values)) environment.set(name, value)
        // A variable that is set to nothing is still "defined" to a template.
        if (tools !== undefined) environment.set('tools', tools)
        const result = new BoundedInterpreter(environment).run(program).value
        if (typeof result !== 'string') throw new Error('did not produce text')
        return result
      })
    },
  }
}

function builtins(now: () => Date): Record<string, unknown> {
  return {
    ...{ true: true, True: true, false: false, False: false, none: null, None: null },
    range,
    raise_exception: (message: unknown) => {
      throw new Error(String(message))
    },
    strftime_now: (format: unknown) => strftime(now(), String(format)),
  }
}

function range(...bounds: unknown[]): number[] {
  const [first = 0, second, step = 1] = bounds.filter((bound) => typeof bound === 'number')
  const [start, end] = second === undefined ? [0, first] : [first, second]
  const length = Math.max(0, Math.ceil((end - start) / step))
  if (!(length <= MAX_RANGE)) throw new Error(`range() of ${length} items, at most ${MAX_RANGE} are accepted`)
  return Array.from({ length }, (_, i) => start + i * step)
}

/** Stops a template that does not end by itself. */
class BoundedInterpreter extends Interpreter {
  #steps = 0

  override evaluate(node: unknown, environment: unknown): unknown {
    if (++this.#steps > MAX_STEPS) throw new Error(`still not done after ${MAX_STEPS} steps`)
    return super.evaluate(node, environment)
  }
}

function attempt<T>(action: () => T): T {
  try {
    return action()
  } catch (error) {
    throw failed(error instanceof Error ? error.message : String(error), error)
  }
}

function nameOf(tokenizer: Tokenizer, id: number | undefined): string {
  return id === undefined ? '' : tokenizer.tokenText(id)
}

function checkMessages(messages: readonly ChatMessage[]): void {
  if (!Array.isArray(messages)) throw new TandemError('ERR_ARGUMENT', 'messages: not an array')
  for (const [i, message] of messages.entries()) {
    const role: unknown = typeof message === 'object' && message !== null ? (message as ChatMessage).role : undefined
    if (typeof role !== 'string') throw new TandemError('ERR_ARGUMENT', `messages[${i}]: not an object with a role`)
  }
}
