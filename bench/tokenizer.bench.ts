/** Text to tokens and back, with the bundled model's vocabulary. */
import { readFileSync } from 'node:fs'
import { createTokenizer } from '../src/text/tokenizer.ts'
import { openModelFile, POCKET_MODEL } from '../src/index.ts'
import { type Case, expect, isWanted, type Settings, type Suite } from './support/suite.ts'

/** Real sentences, all different, and one with what is rare. */
function textOf(tasks: number): string {
  const lines = readFileSync(new URL('../models/pocket/tasks.jsonl', import.meta.url), 'utf8')
    .trim()
    .split('\n')
    .slice(0, tasks)
  const prompts = lines.map((line) => (JSON.parse(line) as { prompt: string }).prompt)
  return [...prompts, 'Two rivers (12.5 km long) meet: Größe, 東京, 🙂.'].join('\n')
}

async function* cases(settings: Settings): AsyncGenerator<Case> {
  const tokenizer = createTokenizer((await openModelFile(POCKET_MODEL)).metadata)
  for (const tasks of [1, 400]) {
    const text = textOf(tasks)
    const ids = tokenizer.encode(text, { addSpecial: false })
    const check = (): void => expect(tokenizer.decode(ids) === text, 'what comes back is not what went in')
    const work = [{ amount: ids.length, unit: 'Mtokens/s' }] as const
    const name = (verb: string): string => `${verb} ${text.length} characters, ${ids.length} tokens`
    const both: Case[] = [
      { name: name('encode'), work, check, run: () => void tokenizer.encode(text, { addSpecial: false }) },
      { name: name('decode'), work, check, run: () => void tokenizer.decode(ids) },
    ]
    for (const each of both) if (isWanted(settings, 'tokenizer', each.name)) yield each
  }
}

export const suite: Suite = { name: 'tokenizer', about: "the pocket model's vocabulary", bothModes: false, cases }
