/** `tandem tokenize`: the token ids of a text. Reads the file's header, never its weights. */
import type { Command } from 'commander'
import { TandemError } from '../../errors.ts'
import { openModelFile } from '../../gguf/open.ts'
import { createTokenizer } from '../../text/tokenizer.ts'
import { addModelArgument, modelPath } from '../engine-options.ts'
import { isPiped, readStdin } from '../input.ts'
import type { Io } from '../io.ts'
import { quoted, table } from '../text.ts'

interface Flags {
  readonly text?: string
  readonly parseSpecial?: true
  readonly addSpecial: boolean
  readonly json?: true
}

export function define(command: Command, io: Io): void {
  addModelArgument(command)
    .option('-t, --text <text>', 'the text; left out: all of stdin')
    .option('--parse-special', 'recognise control tokens that are written in the text')
    .option('--no-add-special', 'leave out the begin and end tokens that the file asks for')
    .option('--json', '{"ids":[...]}')
    .addHelpText('after', '\nExample:\n  $ tandem tokenize model.gguf --text "Hello world" --json\n')
    .action((model: string | undefined, flags: Flags) => run(model, flags, io))
}

async function run(model: string | undefined, flags: Flags, io: Io): Promise<void> {
  const text = flags.text ?? (isPiped() ? await readStdin(io.signal) : undefined)
  if (text === undefined) throw new TandemError('ERR_ARGUMENT', 'there is no text: pass --text "...", or pipe a text to stdin')
  const file = await openModelFile(modelPath(model), { signal: io.signal })
  const tokenizer = createTokenizer(file.metadata)
  const ids = tokenizer.encode(text, { addSpecial: flags.addSpecial, parseSpecial: flags.parseSpecial ?? false })
  if (flags.json) await io.writeJson({ ids })
  else await io.write(table(ids.map((id) => [id, quoted(tokenizer.tokenText(id))])))
}
