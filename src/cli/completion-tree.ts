/** What a shell has to know of the command line, taken from commander's own tree. */
import type { Command, Option } from 'commander'
import { PIPELINE_NAMES } from '../pipeline/resolve.ts'

/** What may stand at a place; nothing that can be known where both are empty. */
export interface Values {
  readonly words: readonly string[]
  /** `gguf`: those files, and directories. */
  readonly files: 'none' | 'any' | 'gguf'
}

/** An option. */
export interface CompletedOption {
  /** `-q`. */
  readonly short: string | undefined
  /** `--quiet`. */
  readonly long: string
  readonly description: string
  /** Undefined for a flag. */
  readonly values: Values | undefined
  /** Whether all words up to the next option are its values. */
  readonly isVariadic: boolean
}

/** A command. */
export interface CompletedCommand {
  readonly name: string
  readonly summary: string
  readonly options: readonly CompletedOption[]
  readonly values: Values
}

/** The whole command line. */
export interface CompletedProgram {
  readonly name: string
  readonly options: readonly CompletedOption[]
  readonly commands: readonly CompletedCommand[]
}

const NOTHING: Values = { words: [], files: 'none' }

/** The first part of a sentence, which is what there is room for. */
const short = (description: string): string => description.split(/;| \(/)[0]!.trim()

function valuesOf({ required, optional, argChoices, long, flags }: Option): Values | undefined {
  if (!required && !optional) return undefined
  if (argChoices) return { words: argChoices, files: 'none' }
  if (long === '--pipeline') return { words: PIPELINE_NAMES, files: 'any' }
  return /<(path|files?)(\.\.\.)?>/.test(flags) ? { words: [], files: 'any' } : NOTHING
}

function optionsOf(command: Command): CompletedOption[] {
  return command
    .createHelp()
    .visibleOptions(command)
    .map((option) => ({
      short: option.short,
      long: option.long!,
      description: short(option.description),
      values: valuesOf(option),
      isVariadic: option.variadic,
    }))
}

/** Of all arguments together: which of them a word is depends on the others. */
function argumentsOf({ registeredArguments }: Command): Values {
  const words = registeredArguments.flatMap(({ argChoices = [] }) => argChoices)
  if (words.length > 0 || registeredArguments.length === 0) return { words, files: 'none' }
  return { words, files: registeredArguments.every((argument) => argument.name() === 'model') ? 'gguf' : 'any' }
}

/** Reads the tree of a program whose commands are all defined. */
export function completedProgram(program: Command): CompletedProgram {
  const commands = program.commands.map((command) => ({
    name: command.name(),
    summary: command.description(),
    options: optionsOf(command),
    values: argumentsOf(command),
  }))
  const help = {
    name: 'help',
    summary: 'display help for a command',
    options: [],
    values: { words: commands.map(({ name }) => name), files: 'none' } as const,
  }
  return { name: program.name(), options: optionsOf(program), commands: [...commands, help] }
}
