// Builds wasm/*.c into wasm/dist/kernels-dot.wasm, kernels-relaxed.wasm and kernels-simd.wasm.
//
//   node wasm/build.mjs            build all
//   node wasm/build.mjs --check    build into a temporary folder and compare the bytes with wasm/dist; exit 1 when they differ
//
// emcc is looked for in $EMCC, on PATH, in .cache/emscripten and in /opt/emscripten (the last two as
// scripts/emscripten-on-debian-12.sh leaves them). The committed files are built with emscripten 3.1.69 and clang 19: another
// version works, but gives other bytes. The result depends on the sources and the version alone, not on the clone's folder.
import { execFile } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

const run = promisify(execFile)
const folder = dirname(fileURLToPath(import.meta.url))
// dot: for CPUs that sum four products of bytes in one instruction (simd.h)
const BUILDS = {
  'kernels-dot.wasm': ['-mrelaxed-simd', '-DDOT_BUILD'],
  'kernels-relaxed.wasm': ['-mrelaxed-simd'],
  'kernels-simd.wasm': [],
}

const FLAGS = [
  ...['-std=gnu17', '-O3', '-g0', '-Wall', '-Wextra', '-Werror', '-I.'],
  // one rounding per operation as written: the scalar reference and all builds must agree bit for bit
  ...['-ffp-contract=off', '-fno-exceptions', '-fvisibility=hidden'],
  ...['-msimd128', '-mbulk-memory', '-matomics', '-Wl,--shared-memory'],
  // an arena may be any size up to 4 GiB: the module asks for little and allows the most
  ...['--no-entry', '-sSTANDALONE_WASM', '-sIMPORTED_MEMORY', '-sALLOW_MEMORY_GROWTH', '-sINITIAL_MEMORY=131072', '-sMAXIMUM_MEMORY=4GB'],
  // every worker sets its own stack: the one laid out here serves instantiation alone
  ...['-sSTACK_SIZE=16384', '-Wl,--export=__stack_pointer', '-Wl,--export=__heap_base'],
]

/** The functions that kernels.h declares are the exports: the list is kept there only. */
export function exportedFunctions(header) {
  const code = header.replaceAll(/\/\*[\s\S]*?\*\//g, '').replaceAll(/\/\/.*$/gm, '')
  return [...code.matchAll(/^int (\w+)\s*\(/gm)].map((match) => match[1])
}

function findEmscripten() {
  const roots = [join(folder, '..', '.cache', 'emscripten'), '/opt/emscripten']
  const fromPath = (process.env.PATH ?? '').split(delimiter).map((entry) => join(entry, 'emcc'))
  const unpacked = roots.map((root) => join(root, 'usr/share/emscripten/emcc'))
  const emcc = [process.env.EMCC, ...fromPath, ...unpacked].find((file) => file && existsSync(file))
  if (!emcc) {
    throw new Error('no emcc: set EMCC, install emscripten, or run scripts/emscripten-on-debian-12.sh .cache/emscripten (Debian 12)')
  }
  const config = join(dirname(emcc), '../../../em_config')
  const env = { ...process.env }
  if (!env.EM_CONFIG && existsSync(config)) env.EM_CONFIG = config
  return { emcc, env }
}

async function build(emscripten, output) {
  mkdirSync(output, { recursive: true })
  const sources = readdirSync(folder)
    .filter((name) => name.endsWith('.c'))
    .sort()
  if (sources.length === 0) throw new Error('wasm/ has no .c file')
  const exported = exportedFunctions(readFileSync(join(folder, 'kernels.h'), 'utf8'))
  const list = `-sEXPORTED_FUNCTIONS=${exported.map((name) => `_${name}`).join(',')}`
  // relative names and a fixed working folder: nothing of the clone's path can reach the output
  const options = { cwd: folder, env: emscripten.env, maxBuffer: 1 << 26 }
  await Promise.all(
    Object.entries(BUILDS).map(([name, flags]) =>
      run(emscripten.emcc, [...FLAGS, ...flags, list, ...sources, '-o', join(output, name)], options),
    ),
  )
  for (const name of Object.keys(BUILDS)) verify(name, readFileSync(join(output, name)), exported)
}

/** The boundary of DESIGN: one import, the memory; every kernel exported; no names left in the file. */
function verify(name, bytes, exported) {
  let module
  try {
    module = new WebAssembly.Module(bytes)
  } catch (error) {
    // an old Node cannot read the relaxed build; CI's can
    process.stderr.write(`${name}: not inspected, this Node cannot compile it (${error.message})\n`)
    return
  }
  const imports = WebAssembly.Module.imports(module).map((entry) => `${entry.module}.${entry.name}`)
  if (imports.join() !== 'env.memory') throw new Error(`${name}: the only import must be env.memory, found ${imports.join(', ')}`)
  const names = new Set(WebAssembly.Module.exports(module).map((entry) => entry.name))
  const missing = [...exported, '__stack_pointer', '__heap_base'].filter((entry) => !names.has(entry))
  if (missing.length > 0) throw new Error(`${name}: not exported: ${missing.join(', ')}`)
  for (const section of ['name', 'producers', 'sourceMappingURL']) {
    if (WebAssembly.Module.customSections(module, section).length > 0) throw new Error(`${name}: has a ${section} section`)
  }
}

async function check(emscripten) {
  const temporary = mkdtempSync(join(tmpdir(), 'tandem-wasm-'))
  try {
    await build(emscripten, temporary)
    const different = Object.keys(BUILDS).filter((name) => {
      const committed = join(folder, 'dist', name)
      return !existsSync(committed) || !readFileSync(committed).equals(readFileSync(join(temporary, name)))
    })
    if (different.length > 0) throw new Error(`not what the sources build to: ${different.join(', ')}; run npm run build:wasm`)
  } finally {
    rmSync(temporary, { recursive: true, force: true })
  }
}

async function main() {
  const emscripten = findEmscripten()
  const { stdout } = await run(emscripten.emcc, ['--version'], { env: emscripten.env })
  const checking = process.argv.includes('--check')
  process.stderr.write(`${stdout.split('\n')[0]}\n`)
  await (checking ? check(emscripten) : build(emscripten, join(folder, 'dist')))
  for (const name of Object.keys(BUILDS)) {
    const size = readFileSync(join(folder, 'dist', name)).length
    process.stderr.write(`wasm/dist/${name}: ${size} bytes${checking ? ', as built from the sources' : ''}\n`)
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  main().catch((error) => {
    process.stderr.write(`${error.stderr ?? ''}wasm/build.mjs: ${error.stderr ? 'the build failed' : error.message}\n`)
    process.exit(1)
  })
}
