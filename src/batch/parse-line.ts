/** A line of a batch to a task, or to the reason why it is none. Never throws, whatever the line says. */
import type { Prompt } from '../engine/generate.ts'
import type { ChatMessage } from '../text/chat-template.ts'
import { FieldError, isGiven, readFields, shown } from './fields.ts'
import type { Line } from './lines.ts'
import type { BatchForm, BatchTask, Refusal } from './task.ts'

type Fields = Readonly<Record<string, unknown>>

/** OpenAI's urls. */
const FORMS: Readonly<Record<string, BatchForm>> = { '/v1/chat/completions': 'chat', '/v1/completions': 'completion' }
const ENVELOPE = new Set(['custom_id', 'method', 'url', 'body'])
const PLAIN = new Set(['id', 'prompt', 'messages', 'raw'])
const BODY = new Set(['prompt', 'messages'])

/** Nothing but white space, which is no task and no mistake. */
export const isBlank = ({ text }: Line): boolean => text !== undefined && /^\s*$/.test(text)

/** Parses one line. */
export function parseLine({ number: line, text, problem }: Line): BatchTask | Refusal {
  const refuse = (message: string): Refusal => ({ form: 'unknown', id: undefined, line, message, field: undefined })
  if (text === undefined) return refuse(problem ?? 'cannot be read')
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (error) {
    // V8 adds a line and a column, of this one line
    return refuse(`not JSON: ${(error as Error).message.replace(/ \(line \d+ column \d+\)$/, '')}`)
  }
  if (!isObject(value)) return refuse(`must be a JSON object, not ${shown(value)}`)
  return Object.keys(value).some((field) => ENVELOPE.has(field)) ? parseEnvelope(value, line) : parsePlain(value, line)
}

const isObject = (value: unknown): value is Fields => typeof value === 'object' && value !== null && !Array.isArray(value)

function parsePlain(value: Fields, line: number): BatchTask | Refusal {
  const id = value['id']
  const isId = (typeof id === 'string' && id !== '') || Number.isSafeInteger(id)
  const address = { form: 'plain', id: isId ? (id as string | number) : undefined, line } as const
  return attempt(address, () => {
    if (!isId) throw new FieldError('id', `must be a text or a whole number, not ${shown(id)}`)
    const raw = value['raw'] ?? undefined
    if (raw !== undefined && typeof raw !== 'boolean') throw new FieldError('raw', `must be true or false, not ${shown(raw)}`)
    const { prompt, messages } = value
    if (isGiven(prompt) && isGiven(messages)) throw new FieldError('messages', 'cannot go together with prompt')
    const options = { ...readFields(value, PLAIN), ...(raw === undefined ? {} : { raw }) }
    return { ...address, prompt: isGiven(messages) ? messagesOf(messages) : promptOf(prompt), options }
  })
}

function parseEnvelope(value: Fields, line: number): BatchTask | Refusal {
  const { custom_id: id, method, url, body } = value
  const form = typeof url === 'string' && Object.hasOwn(FORMS, url) ? FORMS[url]! : 'unknown'
  const isId = typeof id === 'string' && id !== ''
  // without a url it is still OpenAI's form that answers
  const address = { form: form === 'unknown' ? 'chat' : form, id: isId ? id : undefined, line } as const
  return attempt(address, () => {
    if (!isId) throw new FieldError('custom_id', `must be a text, not ${shown(id)}`)
    if (isGiven(method) && method !== 'POST') throw new FieldError('method', `must be "POST", not ${shown(method)}`)
    if (url === '/v1/embeddings') throw new FieldError('url', 'embeddings are not supported yet')
    if (form === 'unknown') throw new FieldError('url', `must be ${Object.keys(FORMS).join(' or ')}, not ${shown(url)}`)
    if (!isObject(body)) throw new FieldError('body', `must be an object, not ${shown(body)}`)
    const options = readFields(body, BODY)
    const other = form === 'chat' ? 'prompt' : 'messages'
    if (isGiven(body[other])) throw new FieldError(other, `is not a field of ${shown(url)}`)
    if (form === 'chat') return { ...address, prompt: messagesOf(body['messages']), options }
    // a completion goes on from the text as it is
    return { ...address, prompt: promptOf(body['prompt']), options: { ...options, raw: true } }
  })
}

function attempt(address: Pick<Refusal, 'form' | 'id' | 'line'>, parse: () => BatchTask): BatchTask | Refusal {
  try {
    return parse()
  } catch (error) {
    const field = error instanceof FieldError ? error.field : undefined
    return { ...address, message: (error as Error).message, field }
  }
}

/** A text, token ids, or either alone in an array. */
function promptOf(value: unknown): Prompt {
  if (typeof value === 'string') return value
  if (Array.isArray(value) && value.length === 1 && (typeof value[0] === 'string' || Array.isArray(value[0]))) return promptOf(value[0])
  const isTokens = Array.isArray(value) && value.length > 0 && value.every((id) => Number.isSafeInteger(id) && id >= 0)
  if (isTokens) return value as number[]
  throw new FieldError('prompt', `must be one text or one array of token ids, not ${shown(value)}`)
}

function messagesOf(value: unknown): readonly ChatMessage[] {
  if (!Array.isArray(value) || value.length === 0) {
    throw new FieldError('messages', `must be an array of messages that is not empty, not ${shown(value)}`)
  }
  return value.map((message: unknown, index) => {
    if (!isObject(message)) throw new FieldError(`messages[${index}]`, `must be an object, not ${shown(message)}`)
    const { role, content } = message
    if (typeof role !== 'string') throw new FieldError(`messages[${index}].role`, `must be a text, not ${shown(role)}`)
    return { ...message, role, content: contentOf(content, `messages[${index}].content`) }
  })
}

/** A text, or parts of one; empty where a message has none, such as a call of a tool. */
function contentOf(content: unknown, field: string): string {
  if (!isGiven(content)) return ''
  if (typeof content === 'string') return content
  if (!Array.isArray(content)) throw new FieldError(field, `must be a text or an array of parts, not ${shown(content)}`)
  return content
    .map((part: unknown, index) => {
      const text = typeof part === 'string' ? part : isObject(part) && part['type'] === 'text' ? part['text'] : undefined
      if (typeof text !== 'string') throw new FieldError(`${field}[${index}]`, 'only parts of text are supported')
      return text
    })
    .join('')
}
