/** Lines of the output: answers and errors in the shape of the line that asked, and what is read from them when a job is gone on with. */
import { hash } from 'node:crypto'
import type { Answered, LineError } from './answerer.ts'
import type { Address } from './task.ts'

/** The text that tells lines of a job apart: by id, or by number where there is none. */
export function keyOf({ id, line }: Pick<Address, 'id' | 'line'>): string {
  return id === undefined ? `line ${line}` : `id ${id}`
}

/** Ids that OpenAI's shape asks for; the same in every run. */
const requestId = (address: Address): string => hash('sha256', keyOf(address), 'hex').slice(0, 24)

/** A line with an answer that was there `now`, seconds since 1970; without its end. */
export function answerLine(address: Address, { text, finish, model }: Answered, now: number): string {
  const { finishReason, promptTokens, reusedTokens, tokens } = finish
  const { form, id } = address
  if (form === 'plain') return JSON.stringify({ id, text, finishReason, promptTokens, tokens })
  const isChat = form === 'chat'
  const choice = { index: 0, ...(isChat ? { message: { role: 'assistant', content: text } } : { text }) }
  return envelope(address, 200, {
    id: `${isChat ? 'chatcmpl' : 'cmpl'}-${requestId(address)}`,
    object: isChat ? 'chat.completion' : 'text_completion',
    created: now,
    model,
    choices: [{ ...choice, logprobs: null, finish_reason: finishReason }],
    usage: {
      prompt_tokens: promptTokens,
      completion_tokens: tokens,
      total_tokens: promptTokens + tokens,
      prompt_tokens_details: { cached_tokens: reusedTokens },
    },
  })
}

/** A line with an error, without its end. */
export function errorLine(address: Address, error: LineError): string {
  const { form, id = null, line } = address
  const { code, message, field } = error
  const told = { code, message, line }
  if (form === 'plain') return JSON.stringify({ id, error: told })
  // nobody can tell which shape such a line had: it gets the fields of both
  if (form === 'unknown') return JSON.stringify({ id: null, custom_id: null, response: null, error: told })
  const body = { error: { message, type: 'invalid_request_error', param: field ?? null, code } }
  return envelope(address, 400, body, told)
}

function envelope(address: Address, status: number, body: object, error: object | null = null): string {
  const request = requestId(address)
  return JSON.stringify({
    id: `batch_req_${request}`,
    custom_id: address.id ?? null,
    response: { status_code: status, request_id: request, body },
    error,
  })
}

/** Which line of the input an output's line belongs to, and whether it has an error; undefined when it is not a line of ours. */
export function readAnswer(text: string): { readonly key: string; readonly isFailed: boolean } | undefined {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    return undefined
  }
  if (typeof value !== 'object' || value === null) return undefined
  const { id, custom_id: customId, error } = value as { id?: unknown; custom_id?: unknown; error?: { line?: unknown } | null }
  const own = customId === undefined ? id : customId
  const line = error?.line
  const isFailed = error !== undefined && error !== null
  if (typeof own === 'string' || typeof own === 'number') return { key: keyOf({ id: own, line: 0 }), isFailed }
  return typeof line === 'number' ? { key: keyOf({ id: undefined, line }), isFailed } : undefined
}
