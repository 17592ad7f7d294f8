/** Completion scripts of the three shells. They hold every word, so that a Tab starts no process. Pure. */
import type { CompletedCommand, CompletedOption, CompletedProgram, Values } from './completion-tree.ts'

/** The shells. */
export const SHELLS = ['bash', 'zsh', 'fish'] as const

/** A shell's name. */
export type ShellName = (typeof SHELLS)[number]

const namesOf = (options: readonly CompletedOption[]): string[] =>
  options.flatMap(({ short, long }) => (short === undefined ? [long] : [short, long]))

const isKnown = ({ words, files }: Values): boolean => words.length > 0 || files !== 'none'

// bash

function bashValues({ words, files }: Values): string {
  const calls = [
    ...(words.length > 0 ? [`_tandem_words '${words.join(' ')}'`] : []),
    ...(files === 'none' ? [] : [files === 'gguf' ? '_tandem_files gguf' : '_tandem_files']),
  ]
  return calls.join('; ') || ':'
}

/** Lines of `case "$command:$previous"`, one per kind of values; where nothing is known, nothing is offered. */
function bashOptionValues({ name, options }: CompletedCommand): string[] {
  const byValues = new Map<string, string[]>()
  for (const option of options) {
    if (!option.values) continue
    const values = bashValues(option.values)
    byValues.set(values, [...(byValues.get(values) ?? []), ...namesOf([option]).map((each) => `${name}:${each}`)])
  }
  return [...byValues].map(([values, patterns]) => `    ${patterns.join('|')}) ${values}; return ;;`)
}

function bash({ options, commands }: CompletedProgram): string {
  const variadic = commands.flatMap(({ name, options: own }) =>
    own.flatMap((option) =>
      option.isVariadic && option.values ? [`    ${name}:${option.long}) ${bashValues(option.values)}; return ;;`] : [],
    ),
  )
  return `# bash completion for tandem. In ~/.bashrc: source <(tandem completion bash)
_tandem_words() { COMPREPLY+=($(compgen -W "$1" -- "$current")); }
_tandem_files() {
  local IFS=$'\\n'
  compopt -o filenames 2>/dev/null
  if [[ -z $1 ]]; then COMPREPLY+=($(compgen -f -- "$current"))
  else COMPREPLY+=($(compgen -f -X "!*.$1" -- "$current") $(compgen -d -- "$current")); fi
}
_tandem() {
  local current="\${COMP_WORDS[COMP_CWORD]}" previous="\${COMP_WORDS[COMP_CWORD - 1]}" command='' option='' word index
  COMPREPLY=()
  # bash takes --option=value for three words
  if [[ $current == '=' ]]; then current=''
  elif [[ $previous == '=' ]]; then previous="\${COMP_WORDS[COMP_CWORD - 2]}"; fi
  for ((index = 1; index < COMP_CWORD; index++)); do
    word="\${COMP_WORDS[index]}"
    if [[ $word == -* ]]; then option="$word"
    elif [[ -z $command ]]; then command="$word"; fi
  done
  case "$command:$previous" in
${commands.flatMap(bashOptionValues).join('\n')}
  esac
  if [[ $current == -* ]]; then
    case "$command" in
      '') _tandem_words '${namesOf(options).join(' ')}' ;;
${commands.map(({ name, options: own }) => `      ${name}) _tandem_words '${namesOf(own).join(' ')}' ;;`).join('\n')}
    esac
    return
  fi
  case "$command:$option" in
${variadic.join('\n')}
  esac
  case "$command" in
    '') _tandem_words '${commands.map(({ name }) => name).join(' ')}' ;;
${commands.map(({ name, values }) => `    ${name}) ${bashValues(values)} ;;`).join('\n')}
  esac
}
complete -F _tandem tandem
`
}

// zsh

/** Text in single quotes, for every shell here but fish. */
const single = (text: string): string => `'${text.replaceAll("'", String.raw`'\''`)}'`

/** A blank in front: without arguments of `_arguments`' own. */
function zshAction({ words, files }: Values): string {
  const fileAction = files === 'gguf' ? '_files -g "*.gguf"' : '_files'
  if (words.length === 0) return files === 'none' ? ' ' : fileAction
  return files === 'none' ? `(${words.join(' ')})` : ` _tandem_either "${words.join(' ')}"`
}

/** Arguments of zsh's `_arguments`. */
function zshOption({ short, long, description, values, isVariadic }: CompletedOption): string {
  const told = description.replaceAll(/[[\]\\:]/g, String.raw`\$&`)
  const rest = `[${told}]${values ? `:${isVariadic ? '*-*:' : ''}value:${zshAction(values)}` : ''}`
  // a value may be a part of the word: --option=value, -ovalue
  const joint = (name: string): string => (name.startsWith('--') ? '=' : '+')
  // '*': may be given again, as some options may
  const spec = (name: string): string => single(`*${name}${values && !isVariadic ? joint(name) : ''}${rest}`)
  return (short === undefined ? [long] : [short, long]).map(spec).join(' ')
}

function zshCommand({ name, options, values }: CompletedCommand): string {
  const positional = isKnown(values) ? [single(`*:argument:${zshAction(values)}`)] : []
  return `        ${name}) _arguments -s \\\n${[...options.map(zshOption), ...positional].map((line) => `          ${line}`).join(' \\\n')} ;;`
}

function zsh({ options, commands }: CompletedProgram): string {
  return `#compdef tandem
# zsh completion for tandem. In ~/.zshrc, behind compinit: source <(tandem completion zsh)
_tandem_either() { _alternative "words:value:($1)" 'files:file:_files'; }
_tandem() {
  local context state line
  typeset -A opt_args
  local -a commands
  commands=(
${commands.map(({ name, summary }) => `    ${single(`${name}:${summary.replaceAll(':', String.raw`\:`)}`)}`).join('\n')}
  )
  _arguments -C \\
${options.map((option) => `    ${zshOption(option)} \\`).join('\n')}
    '1:command:->command' '*::argument:->argument'
  case $state in
    command) _describe -t commands command commands ;;
    argument)
      case $words[1] in
${commands.map(zshCommand).join('\n')}
      esac ;;
  esac
}
if [[ $funcstack[1] == _tandem ]]; then _tandem "$@"; else compdef _tandem tandem; fi
`
}

// fish

const fishQuoted = (text: string): string => `'${text.replaceAll('\\', String.raw`\\`).replaceAll("'", String.raw`\'`)}'`

/** Where values come from: `-x` wants one and is no file, `-r -F` wants a file. */
function fishValues(values: Values | undefined): string {
  if (!values) return ''
  const words = values.words.length > 0 ? ` -a ${fishQuoted(values.words.join(' '))}` : ''
  return `${values.files === 'none' ? ' -x' : ' -r -F'}${words}`
}

const fishOption = (condition: string, { short, long, description, values }: CompletedOption): string =>
  `complete -c tandem -n ${condition}${short === undefined ? '' : ` -s ${short.slice(1)}`} -l ${long.slice(2)}${fishValues(values)} -d ${fishQuoted(description)}`

function fishCommand({ name, options, values }: CompletedCommand): string[] {
  const condition = `'__fish_seen_subcommand_from ${name}'`
  const positional = {
    none: values.words.length > 0 ? [`complete -c tandem -n ${condition} -a ${fishQuoted(values.words.join(' '))}`] : [],
    any: [`complete -c tandem -n ${condition} -F`],
    gguf: [`complete -c tandem -n ${condition} -k -a '(__fish_complete_suffix .gguf)'`],
  }[values.files]
  return [...options.map((option) => fishOption(condition, option)), ...positional]
}

function fish({ options, commands }: CompletedProgram): string {
  return [
    '# fish completion for tandem. Once: tandem completion fish > ~/.config/fish/completions/tandem.fish',
    'complete -c tandem -f',
    ...options.map((option) => fishOption('__fish_use_subcommand', option)),
    ...commands.map(({ name, summary }) => `complete -c tandem -n __fish_use_subcommand -a ${name} -d ${fishQuoted(summary)}`),
    ...commands.flatMap(fishCommand),
    '',
  ].join('\n')
}

/** The script of a shell. */
export function completionScript(shell: ShellName, program: CompletedProgram): string {
  return { bash, zsh, fish }[shell](program)
}
