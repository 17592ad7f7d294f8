// `npm run test:gpu`: what can only be tested on a GPU. First the kernels' own check programs (cuda/check), where nvcc can build them, then the tests of
// pipelines with a device, on the device. Without a GPU it says so, loudly, and passes.
import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { probeCuda } from '../src/cuda/probe.ts'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const DEVICE = ['device-results', 'device-user-stages', 'device-best'].map((name) => `test/unit/engine/${name}.test.ts`)
const TESTS = ['test/golden/cuda-logits.test.ts', ...DEVICE]

const { devices, problem } = await probeCuda()
if (devices.length === 0) {
  process.stdout.write(`SKIPPED: no GPU test was run\n${problem ?? 'the driver knows of no device'}\n`)
  process.exit(0)
}
process.stdout.write(`on ${devices[0].name}\n`)

const failed = []
function run(name, command, args, env = {}) {
  process.stdout.write(`\n${name}\n`)
  const { status } = spawnSync(command, args, { cwd: root, stdio: 'inherit', env: { ...process.env, ...env } })
  if (status !== 0) failed.push(name)
}

/** `cuda/check/NAME.cu` with its program, which build.mjs puts beside the library. */
for (const source of readdirSync(join(root, 'cuda/check')).filter((name) => name.endsWith('_check.cu'))) {
  const name = source.replace(/\.cu$/, '')
  const program = join(root, 'cuda/dist', name)
  if (!existsSync(program)) run(`${name}: build`, process.execPath, ['cuda/build.mjs', '--arch', 'native', '--check', name])
  if (existsSync(program)) run(name, program, [])
}
run('pipelines', process.execPath, ['node_modules/vitest/vitest.mjs', 'run', ...TESTS], { TANDEM_TEST_GPU: '1' })

process.stdout.write(failed.length === 0 ? '\nevery GPU test passed\n' : `\nfailed: ${failed.join(', ')}\n`)
process.exitCode = failed.length === 0 ? 0 : 1
