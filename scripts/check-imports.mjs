// Imports point one way (docs/development.md draws it): every folder of src/ may import what its row says, and nothing else. Circles of
// imports are the linter's (import/no-cycle). A folder without a row fails, so that a new one gets its place deliberately.
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { dirname, join, relative, sep } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseSync } from 'oxc-parser'

const BASE = ['abi', 'errors']
const FILE = [...BASE, 'ring', 'gguf']
const PLAN = [...FILE, 'model', 'placement', 'pipeline']
const EXECUTOR = [...FILE, 'diagnostics', 'trace', 'package-root', 'native', 'user-stages']
const ENGINE = [...PLAN, 'diagnostics', 'trace', 'package-root', 'sampling', 'text', 'user-stages', 'wasm', 'cuda', 'native', 'sidecar']
const LIBRARY = [...ENGINE, 'engine', 'pipelines']

/** `values`: may be imported; `types`: only as types (plain data crosses there, never code). */
const MAY_IMPORT = {
  abi: { values: [] },
  errors: { values: [] },
  diagnostics: { values: [] },
  'package-root': { values: ['errors'] },
  'pocket-model': { values: ['package-root'] },
  ring: { values: [...BASE, 'diagnostics'] },
  native: { values: [...BASE, 'ring'] },
  trace: { values: BASE },
  gguf: { values: BASE },
  sampling: { values: BASE },
  text: { values: BASE, types: ['gguf'] },
  model: { values: FILE },
  placement: { values: [...FILE, 'model'] },
  pipeline: { values: [...FILE, 'model', 'placement', 'pipelines'] },
  'user-stages': { values: [...BASE, 'ring'], types: ['pipeline'] },
  wasm: { values: EXECUTOR, types: ['placement', 'pipeline'] },
  cuda: { values: EXECUTOR, types: ['placement', 'pipeline'] },
  sidecar: { values: [...FILE, 'model', 'placement', 'wasm', 'native'] },
  synth: { values: [...FILE, 'model', 'text'] },
  engine: { values: ENGINE },
  generate: { values: LIBRARY },
  batch: { values: [...LIBRARY, 'generate'] },
  queue: { values: [...ENGINE, 'batch'] },
  library: { values: ['engine', 'batch'] },
  load: { values: ['library', 'engine'] },
  index: { values: [...LIBRARY, 'generate', 'batch', 'synth', 'pocket-model', 'load', 'library'] },
  cli: { values: [...LIBRARY, 'generate', 'batch', 'queue', 'synth', 'pocket-model', 'index'] },
  pipelines: { values: ['pipeline'], types: ['engine'] },
}

/** Packages that enter through one file. */
const PACKAGE_OWNER = {
  piscina: 'src/wasm/pool.ts',
  koffi: 'src/native/koffi.ts',
  bullmq: 'src/queue/packages.ts',
  ioredis: 'src/queue/packages.ts',
}

const root = join(dirname(fileURLToPath(import.meta.url)), '..')

function sources(folder) {
  return readdirSync(join(root, folder), { recursive: true })
    .map((name) => join(folder, name))
    .filter((name) => name.endsWith('.ts') && !name.endsWith('.d.ts') && statSync(join(root, name)).isFile())
    .sort()
}

/** The row a file belongs to: `src/abi/formats.ts` is abi, `src/errors.ts` errors, `pipelines/cpu.ts` pipelines. */
function unitOf(file) {
  const parts = file.split(sep)
  if (parts[0] === 'pipelines') return 'pipelines'
  return parts[0] === 'src' ? parts[1].replace(/\.ts$/, '') : undefined
}

/** Every module a file names: imports, re-exports, `import()`; a type-only one carries no code. */
function importsOf(file, text) {
  const { module, errors } = parseSync(file, text)
  if (errors.length > 0) throw new Error(`${file}: ${errors[0].message}`)
  const line = (offset) => text.slice(0, offset).split('\n').length
  const found = module.staticImports.map((entry) => ({
    specifier: entry.moduleRequest.value,
    line: line(entry.start),
    typeOnly: entry.entries.length > 0 && entry.entries.every((name) => name.isType),
  }))
  for (const statement of module.staticExports) {
    const request = statement.entries.find((entry) => entry.moduleRequest)?.moduleRequest
    const typeOnly = statement.entries.every((entry) => entry.isType)
    if (request) found.push({ specifier: request.value, line: line(statement.start), typeOnly })
  }
  for (const entry of module.dynamicImports) {
    const quoted = /^['"](.*)['"]$/.exec(text.slice(entry.moduleRequest.start, entry.moduleRequest.end))
    if (quoted) found.push({ specifier: quoted[1], line: line(entry.start), typeOnly: false })
  }
  return found
}

function violation(file, { specifier, typeOnly }) {
  const unit = unitOf(file)
  const row = MAY_IMPORT[unit]
  if (!row) return `src/${unit} has no row in scripts/check-imports.mjs`
  if (!specifier.startsWith('.')) {
    const owner = PACKAGE_OWNER[specifier]
    return owner && owner !== file.replaceAll(sep, '/') ? `${specifier} is imported by ${owner} alone` : undefined
  }
  const target = relative(root, join(root, dirname(file), specifier))
  const targetUnit = unitOf(target)
  if (targetUnit === unit) return undefined
  if (targetUnit === undefined) return `${specifier} is not part of the library`
  if (row.values.includes(targetUnit) || (typeOnly && row.types?.includes(targetUnit))) return undefined
  const hint = row.types?.includes(targetUnit) ? ' (except as types)' : ''
  return `${unit} must not import ${targetUnit}${hint}: ${specifier}`
}

const problems = []
const files = [...sources('src'), ...sources('pipelines')]
for (const file of files) {
  const text = readFileSync(join(root, file), 'utf8')
  for (const entry of importsOf(file, text)) {
    const problem = violation(file, entry)
    if (problem) problems.push(`${file}:${entry.line}: ${problem}`)
  }
}
for (const problem of problems) process.stdout.write(`${problem}\n`)
process.stdout.write(`${files.length} files, ${problems.length} imports in the wrong direction\n`)
process.exitCode = problems.length > 0 ? 1 : 0
