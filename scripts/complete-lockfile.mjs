// Adds to package-lock.json the optional packages it leaves out: `node scripts/complete-lockfile.mjs`, after every `npm install PACKAGE`.
//
// A registry that mirrors only some platforms makes npm write a lock without the others' binaries, and `npm ci` then refuses the lock
// everywhere. The name and the exact version are in the package that asks for them, the platform is in the name; the integrity is not
// known, so npm takes it from the registry on the platform concerned. test/unit/repository checks that nothing is missing.
import { readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')

/** `@scope/binding-linux-arm-gnueabihf` -> os linux, cpu arm, libc glibc; what comes before the platform is any name. */
function platform(name) {
  const found = /(?:aix|android|darwin|freebsd|linux|netbsd|openbsd|openharmony|sunos|win32)-.*$/.exec(name)
  if (!found) throw new Error(`${name}: the name does not say which platform it is for`)
  const [os, cpu, abi = ''] = found[0].split('-')
  const libc = abi.startsWith('musl') ? 'musl' : abi.startsWith('gnu') ? 'glibc' : undefined
  return { cpu: [cpu], libc: libc && [libc], os: [os] }
}

/** Optional dependencies without an entry of their own, as `{ name, version, dev, license }`. */
export function missingFromLock(lock) {
  const missing = new Map()
  for (const [path, entry] of Object.entries(lock.packages)) {
    for (const [name, version] of Object.entries(entry.optionalDependencies ?? {})) {
      const isThere = `node_modules/${name}` in lock.packages || `${path}/node_modules/${name}` in lock.packages
      if (!isThere) missing.set(name, { name, version, dev: entry.dev, license: entry.license })
    }
  }
  return [...missing.values()]
}

function complete(path) {
  const lock = JSON.parse(readFileSync(path, 'utf8'))
  const missing = missingFromLock(lock)
  for (const { name, version, dev, license } of missing) {
    if (!/^\d/.test(version)) throw new Error(`${name}: ${version} is not an exact version`)
    const { cpu, libc, os } = platform(name)
    lock.packages[`node_modules/${name}`] = { version, cpu, dev, libc, license, optional: true, os }
  }
  const sorted = Object.entries(lock.packages).sort(([a], [b]) => a.localeCompare(b, 'en'))
  lock.packages = Object.fromEntries(sorted)
  writeFileSync(path, `${JSON.stringify(lock, undefined, 2)}\n`)
  process.stdout.write(`${missing.length} packages added to package-lock.json\n`)
}

if (process.argv[1] === fileURLToPath(import.meta.url)) complete(join(root, 'package-lock.json'))
