// Builds cuda/*.cu into cuda/dist/libtandem-cuda.so with nvcc.
//
//   node cuda/build.mjs [--arch sm_90[,sm_80]] [--out DIR] [--check NAME]
//
// --arch    devices to make code for, `native` this machine's; without it all of ARCHITECTURES. The newest one's PTX goes in too, for devices to come.
// --out     where the library goes; cuda/dist without it. Objects go to cuda/dist/obj, those that are up to date are kept.
// --check   also builds cuda/check/NAME.cu, linked with the library's objects, to NAME beside the library.
//
// nvcc is looked for in $NVCC, on PATH, in $CUDA_HOME/bin and in /usr/local/cuda/bin. The library contains the CUDA runtime: it needs
// the driver alone, and loads without one.
import { execFile, execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, statSync, writeFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { delimiter, dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs, promisify } from 'node:util'

const run = promisify(execFile)
const folder = dirname(fileURLToPath(import.meta.url))
const ARCHITECTURES = ['sm_80', 'sm_86', 'sm_89', 'sm_90', 'sm_100', 'sm_120']
const HOST_FLAGS = '-fPIC,-fno-exceptions,-Wall,-Wextra,-Wno-unknown-pragmas'
const FLAGS = ['-std=c++17', '-O3', '-cudart', 'static', '-Xcompiler', HOST_FLAGS]

function findNvcc() {
  const folders = [
    ...(process.env.PATH ?? '').split(delimiter),
    join(process.env.CUDA_HOME ?? '/usr/local/cuda', 'bin'),
    '/usr/local/cuda/bin',
  ]
  const nvcc = [process.env.NVCC, ...folders.map((entry) => join(entry, 'nvcc'))].find((file) => file && existsSync(file))
  if (!nvcc) throw new Error('no nvcc: install the CUDA toolkit (12.8 or newer), or set NVCC or CUDA_HOME')
  return nvcc
}

/** `native` is this machine's GPU, as its driver tells. */
function nativeArchitecture() {
  const answer = execFileSync('nvidia-smi', ['--query-gpu=compute_cap', '--format=csv,noheader'], { encoding: 'utf8' })
  return `sm_${answer.split('\n')[0].trim().replace('.', '')}`
}

/** nvcc's options for code of every architecture, and PTX of the newest. */
function codeFlags(architectures) {
  const numbers = architectures.map((name) => {
    const match = /^sm_(\d+)$/.exec(name)
    if (!match) throw new Error(`--arch ${name}: sm_ and a number is wanted, as in sm_90`)
    return Number(match[1])
  })
  if (numbers.some((number) => number < 80)) throw new Error('--arch: the kernels need sm_80 or newer')
  const newest = Math.max(...numbers)
  return [...numbers.map((number) => `arch=compute_${number},code=sm_${number}`), `arch=compute_${newest},code=compute_${newest}`].flatMap(
    (code) => ['-gencode', code],
  )
}

const isHeader = (name) => /\.(cuh|h)$/.test(name)
const newest = (files) => Math.max(...files.map((file) => statSync(file).mtimeMs))

/** Any header may be in any source: a newer one makes every object old. */
function headersTime() {
  const headers = (path) =>
    readdirSync(path)
      .filter(isHeader)
      .map((name) => join(path, name))
  return newest([...headers(folder), ...headers(join(folder, '..', 'wasm')), fileURLToPath(import.meta.url)])
}

/** Runs `jobs`, as many at a time as there are cores; the first failure ends it. */
async function inParallel(jobs) {
  const waiting = jobs.values()
  const worker = async () => {
    for (const job of waiting) await job()
  }
  await Promise.all(Array.from({ length: Math.min(availableParallelism(), jobs.length) }, worker))
}

async function compile(nvcc, architectures) {
  const objects = join(folder, 'dist', 'obj', architectures.join('-'))
  mkdirSync(objects, { recursive: true })
  const sources = readdirSync(folder)
    .filter((name) => name.endsWith('.cu'))
    .sort()
  const headers = headersTime()
  const files = sources.map((name) => ({ source: join(folder, name), object: join(objects, name.replace(/\.cu$/, '.o')) }))
  const old = files.filter(({ source, object }) => !existsSync(object) || statSync(object).mtimeMs < Math.max(headers, newest([source])))
  await inParallel(
    old.map(({ source, object }) => async () => {
      const { stderr } = await run(nvcc, [...FLAGS, ...codeFlags(architectures), '-c', source, '-o', object], { maxBuffer: 1 << 26 })
      process.stderr.write(stderr)
    }),
  )
  return { objects, files: files.map(({ object }) => object) }
}

async function main() {
  const { values } = parseArgs({ options: { arch: { type: 'string' }, out: { type: 'string' }, check: { type: 'string' } } })
  const architectures = values.arch?.split(',').map((name) => (name === 'native' ? nativeArchitecture() : name)) ?? ARCHITECTURES
  const out = resolve(values.out ?? join(folder, 'dist'))
  const nvcc = findNvcc()
  const { objects, files } = await compile(nvcc, architectures)
  mkdirSync(out, { recursive: true })
  // the boundary and nothing else: neither our own functions nor the CUDA runtime's may meet another library's
  const exported = join(objects, 'exported')
  writeFileSync(exported, '{ global: tcu_*; local: *; };\n')
  const library = join(out, 'libtandem-cuda.so')
  const linking = [
    '-Xcompiler',
    '-static-libstdc++,-static-libgcc',
    '-Xlinker',
    `--version-script=${exported}`,
    '-Xlinker',
    '--no-undefined',
    '-Xlinker',
    '-s',
  ]
  await run(nvcc, ['-shared', '-cudart', 'static', ...codeFlags(architectures), ...linking, ...files, '-o', library])
  process.stderr.write(`${library}: ${statSync(library).size} bytes, ${architectures.join(' ')}\n`)
  if (!values.check) return
  const source = join(folder, 'check', `${values.check}.cu`)
  if (!existsSync(source)) throw new Error(`--check: there is no ${source}`)
  const { stderr } = await run(nvcc, [...FLAGS, ...codeFlags(architectures), source, ...files, '-o', join(out, values.check)])
  process.stderr.write(`${stderr}${join(out, values.check)}: built\n`)
}

main().catch((error) => {
  process.stderr.write(`${error.stderr ?? ''}cuda/build.mjs: ${error.stderr ? 'the build failed' : error.message}\n`)
  process.exit(1)
})
