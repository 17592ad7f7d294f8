// The scripts are generated from the command table; bash's is run here, those of zsh and fish where the shells are.
import { spawnSync } from 'node:child_process'
import { writeFile } from 'node:fs/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { temporaryDirectory } from '../../fixtures/build-gguf.ts'
import { cli } from './cli-process.ts'

let scripts: Record<'bash' | 'zsh' | 'fish', string>
let directory: Awaited<ReturnType<typeof temporaryDirectory>>
beforeAll(async () => {
  const of = async (shell: string): Promise<string> => (await cli(['completion', shell])).stdout
  scripts = { bash: await of('bash'), zsh: await of('zsh'), fish: await of('fish') }
  directory = await temporaryDirectory()
  for (const name of ['model one.gguf', 'mine.ts', 'notes.txt']) await writeFile(`${directory.path}/${name}`, '')
})
afterAll(() => directory[Symbol.asyncDispose]())

const isThere = (shell: string): boolean => spawnSync(shell, ['-c', 'exit 0']).status === 0

/** What bash offers for the last of the words. */
function offered(...words: string[]): string[] {
  const quoted = words.map((word) => `'${word}'`).join(' ')
  const script = `${scripts.bash}\nCOMP_WORDS=(${quoted}); COMP_CWORD=${words.length - 1}; _tandem; printf '%s\\n' "\${COMPREPLY[@]}"`
  const { stdout, status } = spawnSync('bash', ['--norc', '-c', script], { cwd: directory.path, encoding: 'utf8' })
  expect(status).toBe(0)
  return stdout.split('\n').filter((word) => word !== '')
}

describe.skipIf(!isThere('bash'))('bash completes', () => {
  test.each([
    ['commands', ['tandem', 'sw'], ['sweep']],
    ['global options', ['tandem', '--v'], ['--version']],
    ['options of the command', ['tandem', 'sweep', '--pip'], ['--pipeline']],
    ['choices', ['tandem', 'synth', '--preset', 'm'], ['mid', 'micro']],
    ['choices behind an equals sign, which bash makes a word', ['tandem', 'synth', '--preset', '=', 'mic'], ['micro']],
    ['a pipeline, or the module that has one', ['tandem', 'plan', '--pipeline', 'hy'], ['hybrid']],
    ['a module', ['tandem', 'plan', '--pipeline', 'mi'], ['mine.ts']],
    ['models, with blanks in their names', ['tandem', 'generate', ''], ['model one.gguf']],
    ['several values of an option', ['tandem', 'sweep', '--compare', 'a', 'no'], ['notes.txt']],
    ['commands after help', ['tandem', 'help', 'sy'], ['synth']],
    ['choices of the embeddings', ['tandem', 'embed', '--pooling', ''], ['mean', 'last']],
    ['shells', ['tandem', 'completion', ''], ['bash', 'zsh', 'fish']],
    ['nothing where a number is wanted', ['tandem', 'generate', '--seed', ''], []],
  ])('%s', (_, words, expected) => {
    expect(offered(...words)).toEqual(expected)
  })
})

test.each(['bash', 'zsh', 'fish'] as const)(
  '%s: every command is in it, what is not in the help is not, and the shell can read it',
  (shell) => {
    for (const name of ['generate', 'sweep', 'doctor', 'completion', 'help']) expect(scripts[shell]).toContain(name)
    expect(scripts[shell]).toMatch(/gpu-layers/)
    expect(scripts[shell]).not.toMatch(/kv-tokens|undefined/)
    if (!isThere(shell)) return
    expect(spawnSync(shell, ['-n'], { input: scripts[shell], encoding: 'utf8' })).toMatchObject({ status: 0, stderr: '' })
  },
)

test('another shell is wrong usage', async () => {
  const { code, stderr } = await cli(['completion', 'tcsh'])
  expect({ code, stderr }).toEqual({ code: 2, stderr: expect.stringContaining('Allowed choices are bash, zsh, fish') as string })
})

test('without a name it is the shell that runs, if it is one of ours', async () => {
  expect((await cli(['completion'], { env: { SHELL: '/usr/bin/fish' } })).stdout).toBe(scripts.fish)
  const { code, stderr } = await cli(['completion'], { env: { SHELL: '/bin/tcsh' } })
  expect({ code, stderr }).toEqual({ code: 2, stderr: 'error ERR_ARGUMENT: there is no shell: name one of bash, zsh, fish\n' })
})
