// `npm run docs:api`: pages of the public API from the sources' own comments, into .cache/api. typedoc and its TypeScript live in docs/api with a manifest of
// their own. Any warning is a failure.
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const folder = join(dirname(fileURLToPath(import.meta.url)), '../docs/api')
const typedoc = join(folder, 'node_modules/typedoc/bin/typedoc')

function run(command, args) {
  const { status, error } = spawnSync(command, args, { cwd: folder, stdio: 'inherit', shell: process.platform === 'win32' })
  if (error) throw error
  if (status !== 0) process.exit(status ?? 1)
}

if (!existsSync(typedoc)) run('npm', ['install', '--no-package-lock', '--no-audit', '--no-fund', '--loglevel=error'])
run(process.execPath, [typedoc])
