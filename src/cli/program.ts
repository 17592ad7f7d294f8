/** The command table and what all commands have in common. A command's file is imported when it is called, so that `--help` is quick. */
import { Command } from 'commander'
import { packageVersion } from '../package-root.ts'
import type { Io } from './io.ts'

/** What a command's file exports. */
interface CommandFile {
  /** Adds arguments, options, an example and the action. */
  readonly define: (command: Command, io: Io) => void
}

interface Entry {
  readonly name: string
  readonly summary: string
  readonly load: () => Promise<CommandFile>
}

/** The command that needs to know all the others. */
const COMPLETION = 'completion'

const COMMANDS: readonly Entry[] = [
  { name: 'generate', summary: 'continue a prompt, streaming the text', load: () => import('./commands/generate.ts') },
  { name: 'chat', summary: "talk with a model, in the file's chat template", load: () => import('./commands/chat.ts') },
  {
    name: 'batch',
    summary: 'answer a file of prompts, as many at a time as there is room for; resumable',
    load: () => import('./commands/batch.ts'),
  },
  {
    name: 'worker',
    summary: 'answer lines of batch jobs from a queue on Redis, beside other workers',
    load: () => import('./commands/worker.ts'),
  },
  { name: 'queue', summary: 'jobs and workers at a queue on Redis: how far they are', load: () => import('./commands/queue.ts') },
  { name: 'embed', summary: 'vectors of texts, one line for each', load: () => import('./commands/embed.ts') },
  { name: 'tokenize', summary: 'token ids of a text', load: () => import('./commands/tokenize.ts') },
  { name: 'logits', summary: 'next-token logits at every position', load: () => import('./commands/logits.ts') },
  { name: 'perplexity', summary: 'how well a model predicts a text', load: () => import('./commands/perplexity.ts') },
  { name: 'inspect', summary: 'metadata, tensors, formats and sizes of a model file', load: () => import('./commands/inspect.ts') },
  { name: 'plan', summary: 'where every byte would go, and the program; loads nothing', load: () => import('./commands/plan.ts') },
  { name: 'sweep', summary: 'how fast prefill and decode are at every depth of the cache', load: () => import('./commands/sweep.ts') },
  { name: 'doctor', summary: 'whether this machine, and a model on it, are as they should be', load: () => import('./commands/doctor.ts') },
  { name: 'repack', summary: 'write a copy of the weights that loads at once, or verify one', load: () => import('./commands/repack.ts') },
  { name: 'synth', summary: "write a random-weight model of a real model's shape", load: () => import('./commands/synth.ts') },
  {
    name: COMPLETION,
    summary: 'a script that completes commands and options in bash, zsh or fish',
    load: () => import('./commands/completion.ts'),
  },
]

/** Where people put texts that belong behind an option. */
const TEXT_OPTIONS: Readonly<Record<string, string>> = { generate: '--prompt', embed: '--text', tokenize: '--text' }

/** Commander's `error: what (Did you mean ...?)`, in the form that all errors have; it knows misspelt options, and not cut off or misplaced ones. */
function usageLine(message: string, command: Command | undefined): string {
  const line = message
    .trim()
    .replace(/^error: /, 'error ERR_ARGUMENT: ')
    .replaceAll(/\s*\n\s*/g, ' ')
  const unknown = /unknown option '(--[\w-]+)'/.exec(line)
  const meant = unknown && command?.options.find(({ long, hidden }) => !hidden && long?.startsWith(unknown[1]!))?.long
  if (meant) return `error ERR_ARGUMENT: unknown option '${unknown[1]}' (Did you mean ${meant}?)\n`
  const option = command && TEXT_OPTIONS[command.name()]
  return `${line}${option && line.includes('too many arguments') ? ` A text belongs behind ${option}, in quotes.` : ''}\n`
}

/** The command that the arguments name: the global options have no values, so it is the first word. */
function namedBy(argv: readonly string[]): string | undefined {
  const words = argv.filter((word) => !word.startsWith('-'))
  return words[0] === 'help' ? words[1] : words[0]
}

/** Help for a command that is not there is wrong usage: it is put so that commander says so. */
export function withoutHelpOfNothing(argv: readonly string[]): readonly string[] {
  const named = namedBy(argv)
  const asksForHelp = argv.some((word) => word === 'help' || word === '-h' || word === '--help')
  const isKnown = named === undefined || named === 'help' || COMMANDS.some(({ name }) => name === named)
  return asksForHelp && !isKnown ? [named] : argv
}

/** Commander's program, with the options of the named command alone, as no other is looked at. */
export async function buildProgram(io: Io, argv: readonly string[]): Promise<Command> {
  const named = namedBy(argv)
  const program = new Command('tandem')
    .description('Mixture-of-Experts language models larger than your GPU, inside Node.')
    .version(packageVersion(), '-V, --version')
    .exitOverride()
    .configureOutput({
      outputError: (message, write) =>
        write(
          usageLine(
            message,
            program.commands.find((each) => each.name() === named),
          ),
        ),
    })
    .addHelpText(
      'after',
      `
tandem COMMAND --help explains a command. Where [model] is left out, it is the small model that comes with the package.

Examples:
  $ tandem generate --prompt "Tell me a story about a fox."
  $ tandem doctor model.gguf                                what this machine can do, and which pipeline fits
  $ tandem batch model.gguf in.jsonl -o out.jsonl           a file of prompts, resumable
  $ tandem sweep model.gguf -c 8192 --ubatch 512            how fast it is
`,
    )
  for (const { name, summary, load } of COMMANDS) {
    const command = program.command(name).description(summary)
    if (name !== named && named !== COMPLETION) continue
    const file = await load()
    file.define(command, io)
    command.option('-q, --quiet', 'no talk and no progress on stderr')
    command.hook('preAction', () => void (io.isQuiet = command.opts<{ quiet?: true }>().quiet === true))
  }
  return program
}
