// Builds cuda/dist/libtandem-cuda-host.so, the stand-in for a GPU, with g++; does nothing when it is newer than its sources.
//
//   node cuda/host/build.mjs
//
// It is for the machine it is built on: with AVX2 where that has it.
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, statSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const folder = dirname(fileURLToPath(import.meta.url))
const output = join(folder, '../dist/libtandem-cuda-host.so')

const FLAGS = [
  ...['-std=c++17', '-O3', '-g0', '-fPIC', '-shared', '-pthread', '-Wall', '-Wextra', '-Werror'],
  // weights are read as bytes and as numbers
  '-fno-strict-aliasing',
  // the GPU's library exports the same names
  '-Wl,-Bsymbolic',
]

/** Every file that the library is made of: its own, and what it shares with the GPU's library and the kernels. */
function sources() {
  const own = readdirSync(folder).filter((name) => /\.(cpp|h|mjs)$/.test(name))
  const beside = readdirSync(join(folder, '..')).filter((name) =>
    /^(buffers\.(cu|h)|attention_parts\.h|formats.*\.cuh|tandem_cuda\.h)$/.test(name),
  )
  const kernels = ['blocks.h', 'activations.h']
  return [...own, ...beside.map((name) => `../${name}`), ...kernels.map((name) => `../../wasm/${name}`)]
}

function isFresh() {
  if (!existsSync(output)) return false
  const built = statSync(output).mtimeMs
  return sources().every((name) => statSync(join(folder, name)).mtimeMs < built)
}

function hasAvx2() {
  try {
    return /^flags\s*:.*\bavx2\b.*\bfma\b|^flags\s*:.*\bfma\b.*\bavx2\b/m.test(readFileSync('/proc/cpuinfo', 'utf8'))
  } catch {
    return false
  }
}

/** Builds the stand-in where that is needed and returns its path. Throws an error with g++'s words. */
export function buildStandIn() {
  if (isFresh()) return output
  mkdirSync(dirname(output), { recursive: true })
  // one translation unit: most of the time goes into the standard library's headers
  const units = sources().filter((name) => /\.(cpp|cu)$/.test(name))
  const program = units.map((name) => `#include "${name}"\n`).join('')
  // whoever builds at the same time makes the same bytes, and nobody loads half a file
  const temporary = `${output}.${process.pid}`
  const march = hasAvx2() ? ['-march=x86-64-v3'] : []
  const compiler = process.env.CXX || 'g++'
  const result = spawnSync(compiler, [...FLAGS, ...march, '-I.', '-x', 'c++', '-', '-o', temporary], {
    cwd: folder,
    input: program,
    encoding: 'utf8',
  })
  if (result.error?.code === 'ENOENT')
    throw new Error(`no ${compiler}: install g++ (Debian: apt-get install g++), or set CXX, to build the stand-in for a GPU`)
  if (result.error) throw result.error
  if (result.status !== 0) throw new Error(`${compiler} could not build the stand-in for a GPU:\n${result.stderr}`)
  renameSync(temporary, output)
  return output
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  try {
    process.stderr.write(`${buildStandIn()}\n`)
  } catch (error) {
    process.stderr.write(`cuda/host/build.mjs: ${error.message}\n`)
    process.exitCode = 1
  }
}
