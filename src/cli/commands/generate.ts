/** `tandem generate`: a prompt in, text out as it comes. */
import { existsSync } from 'node:fs'
import type { Command } from 'commander'
import type { Engine } from '../../engine/engine.ts'
import type { Finish, GenerateOptions } from '../../engine/generate.ts'
import { TandemError } from '../../errors.ts'
import { addEngineOptions, type EngineFlags, withEngine } from '../engine-options.ts'
import { isPiped, readStdin } from '../input.ts'
import type { Io } from '../io.ts'
import { addProfileOption, profileText } from '../profile.ts'
import { addSamplingOptions, samplingOptions, type SamplingFlags } from '../sampling-options.ts'
import { quoted } from '../text.ts'
import { watchedAnswer } from '../watched-answer.ts'

interface Flags extends EngineFlags, SamplingFlags {
  readonly prompt?: string
  readonly raw?: true
  readonly json?: true
}

/** What the bundled model is asked when nobody asks anything. */
const FIRST_PROMPT = 'Tell me a story about a fox.'

/** A script that starts us with an open pipe as stdin, and means nothing by it, is told from one that pipes a prompt by its silence. */
const FIRST_BYTE_MS = 1000

export function define(command: Command, io: Io): void {
  addSamplingOptions(addEngineOptions(command).option('-p, --prompt <text>', 'the prompt; - or a pipe: read it from stdin'))
  addProfileOption(command)
    .option('--raw', 'take the prompt as it is, not as a message in the chat template; control tokens in it are recognised')
    .option('--json', 'one line of JSON at the end instead of the text')
    .addHelpText('after', '\nExample:\n  $ tandem generate model.gguf --prompt "Tell me a story about a fox." --temperature 0.7 --seed 1\n')
    .action((model: string | undefined, flags: Flags) => run(model, flags, io))
}

async function run(model: string | undefined, flags: Flags, io: Io): Promise<void> {
  const sampling = samplingOptions(flags)
  const prompt = (await givenPrompt(model, flags, io)) ?? firstPrompt(model, io)
  await withEngine(model, flags, io, (engine) => answer(engine, prompt, { ...sampling, raw: flags.raw ?? false }, flags.json ?? false, io))
}

/** The prompt of the option or of stdin, if there is one. */
async function givenPrompt(model: string | undefined, flags: Flags, io: Io): Promise<string | undefined> {
  if (flags.prompt !== undefined && flags.prompt !== '-') return flags.prompt
  if (flags.prompt === undefined && !isPiped()) return undefined
  const mayBeSilent = flags.prompt === undefined && model === undefined
  const text = await readStdin(io.signal, mayBeSilent ? FIRST_BYTE_MS : undefined)
  // the newline that `echo` and editors end a text with is not meant for the model
  return text?.replace(/\r?\n$/, '') || undefined
}

function firstPrompt(model: string | undefined, io: Io): string {
  if (model !== undefined) {
    const what = existsSync(model) ? 'there is no prompt' : `there is no prompt, and no model ${quoted(model)}`
    throw new TandemError('ERR_ARGUMENT', `${what}: pass --prompt "...", or pipe a text to stdin`)
  }
  io.talk(`no --prompt, so the bundled model is asked: ${FIRST_PROMPT}`)
  return FIRST_PROMPT
}

async function answer(engine: Engine, prompt: string, options: GenerateOptions, isJson: boolean, io: Io): Promise<void> {
  const isSeen = process.stdout.isTTY && !isJson
  let text = ''
  let finish: Finish | undefined
  for await (const delta of watchedAnswer(engine.session(), prompt, { ...options, signal: io.signal }, io, isSeen)) {
    text += delta.text
    finish = delta.finish
    if (!isJson && delta.text !== '') await io.write(delta.text)
  }
  if (!finish) throw new TandemError('ERR_INTERNAL', 'a generation ended without saying how')
  const { promptTokens, tokens, finishReason, timings } = finish
  const profile = engine.profile()
  if (isJson) await io.writeJson({ text, promptTokens, tokens, finishReason, timings, ...(profile ? { profile } : {}) })
  else await io.write('\n')
  io.talk(summary(finish))
  if (profile && !isJson) io.talk(profileText(profile))
}

/** One line about speed. */
export function summary({ promptTokens, tokens, finishReason, timings }: Finish): string {
  const { promptTokensPerSecond, tokensPerSecond } = timings
  const why = finishReason === 'length' ? ', cut off at the limit' : ''
  return `prompt ${promptTokens} tokens (${promptTokensPerSecond.toFixed(1)}/s), answer ${tokens} tokens (${tokensPerSecond.toFixed(1)}/s)${why}`
}
