// What is wrong usage, and what the help says.
import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { cli } from './cli-process.ts'

const COMMANDS = [
  'generate',
  'chat',
  'batch',
  'embed',
  'tokenize',
  'logits',
  'perplexity',
  'inspect',
  'plan',
  'sweep',
  'doctor',
  'repack',
  'synth',
  'completion',
]

describe.concurrent('wrong usage is exit 2, one line on stderr and nothing on stdout:', () => {
  test.each([
    ['an unknown command', ['genrate'], "unknown command 'genrate' (Did you mean generate?)"],
    ['an unknown option', ['generate', '--promt', 'x'], "unknown option '--promt' (Did you mean --prompt?)"],
    ['an unknown global option', ['--hlep'], "unknown option '--hlep' (Did you mean --help?)"],
    ['a misspelt command with options', ['swep', '--json'], "unknown command 'swep' (Did you mean sweep?)"],
    ['an option cut short', ['generate', '--temp', '1'], "unknown option '--temp' (Did you mean --temperature?)"],
    ['help for an unknown command', ['help', 'genrate'], "unknown command 'genrate' (Did you mean generate?)"],
    ['an unknown command’s help', ['genrate', '--help'], "unknown command 'genrate' (Did you mean generate?)"],
    ['a prompt in the place of a model', ['generate', 'Hello you'], 'there is no prompt, and no model "Hello you"'],
    ['a prompt behind a model', ['generate', 'models', 'Hello you'], 'A text belongs behind --prompt, in quotes.'],
    ['a missing value', ['generate', '--prompt'], "option '-p, --prompt <text>' argument missing"],
    ['a value that is no number', ['generate', '-p', 'x', '--top-k', 'many'], "'many' is invalid"],
    ['a value out of range', ['generate', '-p', 'x', '--top-p', '7'], '--top-p: must be above 0 up to 1, not 7'],
    ['an empty stop text', ['generate', '-p', 'x', '--stop', ''], 'must not be empty'],
    ['too many arguments', ['plan', 'a.gguf', 'b.gguf'], 'too many arguments'],
    ['a context beyond the model’s', ['plan', '--context', '99999'], '--context must be a whole number from 1 to'],
    ['no prompt for a model', ['generate', 'model.gguf'], 'there is no prompt'],
    ['no text', ['tokenize'], 'there is no text'],
    ['no tokens', ['logits'], "'--tokens <ids>' not specified"],
    ['bad tokens', ['logits', '--tokens', '1,x'], 'must be token ids'],
    ['no file', ['perplexity'], "'-f, --file <path>' not specified"],
    ['an unknown preset', ['synth', '--preset', 'huge', '-o', 'x.gguf'], 'Allowed choices are'],
    ['an impossible number of layers', ['synth', '--preset', 'micro', '--layers', '1', '-o', 'x.gguf'], '--layers: 1 is not possible'],
  ])('%s', async (_, args, message) => {
    const { code, stdout, stderr } = await cli(args)
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' })
    expect(stderr).toMatch(/^error ERR_ARGUMENT: .*\n$/)
    expect(stderr).toContain(message)
  })
})

test('no command at all shows the help on stderr', async () => {
  const { code, stdout, stderr } = await cli([])
  expect({ code, stdout }).toEqual({ code: 2, stdout: '' })
  expect(COMMANDS.every((name) => stderr.includes(name))).toBe(true)
})

test('help and version go to stdout', async () => {
  const help = await cli(['--help'])
  expect({ ...help, stdout: COMMANDS.filter((name) => help.stdout.includes(`\n  ${name} `)) }).toEqual({
    code: 0,
    stdout: COMMANDS,
    stderr: '',
  })
  expect(help.stdout).toMatch(/Examples:\n {2}\$ tandem generate --prompt/)
  const { version } = JSON.parse(readFileSync(new URL('../../../package.json', import.meta.url), 'utf8')) as { version: string }
  expect(await cli(['--version'])).toEqual({ code: 0, stdout: `${version}\n`, stderr: '' })
})

test('a prompt that is too long is told what makes room', async () => {
  const { code, stderr } = await cli(['generate', '-p', 'x '.repeat(100), '--context', '32'])
  expect({ code, stderr }).toEqual({
    code: 1,
    stderr: expect.stringMatching(/^error ERR_CONTEXT_OVERFLOW: .*; --context makes it longer/) as string,
  })
})

test.each(COMMANDS)('%s --help has an example, and every command may be quiet', async (name) => {
  const { code, stdout } = await cli([name, '--help'])
  expect(code).toBe(0)
  expect(stdout).toMatch(/^ +-q, --quiet /m)
  expect(stdout).toMatch(new RegExp(`Examples?:\n  \\$ (source <\\()?tandem ${name}\\b`))
})
