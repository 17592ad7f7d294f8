// Fails when a source file is over 400 lines, in any language: split it along its seams instead.
import { execFileSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const LIMIT = 400
const SOURCE = /\.(ts|mjs|cjs|js|c|h|cu|cuh|py|sh)$/
const SKIPPED = new Set(['node_modules', 'dist', '.git', '.cache', 'coverage'])
const root = join(dirname(fileURLToPath(import.meta.url)), '..')

/** Tracked files and new ones that git does not ignore; in an unpacked archive, without git, every file. */
function files() {
  try {
    const options = { cwd: root, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'], maxBuffer: 1 << 26 }
    const listed = execFileSync('git', ['ls-files', '-z', '--cached', '--others', '--exclude-standard', '--deduplicate'], options)
    return listed.split('\0')
  } catch {
    return walk('')
  }
}

function walk(folder) {
  return readdirSync(join(root, folder), { withFileTypes: true }).flatMap((entry) => {
    if (SKIPPED.has(entry.name)) return []
    const path = join(folder, entry.name)
    return entry.isDirectory() ? walk(path) : [path]
  })
}

function lines(file) {
  try {
    return readFileSync(join(root, file), 'utf8').split('\n').length - 1
  } catch (error) {
    // still listed by git, but deleted
    if (error.code === 'ENOENT') return 0
    throw error
  }
}

const sources = files().filter((file) => SOURCE.test(file))
const long = sources.map((file) => ({ file, lines: lines(file) })).filter((entry) => entry.lines > LIMIT)
for (const entry of long) process.stdout.write(`${entry.file}: ${entry.lines} lines, the limit is ${LIMIT}\n`)
process.stdout.write(`${sources.length} files, ${long.length} over ${LIMIT} lines\n`)
process.exitCode = long.length > 0 ? 1 : 0
