// `npm ci` on a fresh clone, whatever its registry and platform, stands on these.
import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'

interface Lock {
  readonly packages: Record<string, { version?: string; resolved?: string; optionalDependencies?: Record<string, string> }>
}

const read = (path: string): string => readFileSync(new URL(`../../../${path}`, import.meta.url), 'utf8')

test.each(['package-lock.json', '.node/package-lock.json'])('%s names no registry', (path) => {
  expect(read(path)).not.toContain('"resolved"')
})

test.each(['package-lock.json', '.node/package-lock.json'])('%s has every optional package (scripts/complete-lockfile.mjs)', (path) => {
  const { packages } = JSON.parse(read(path)) as Lock
  const missing = Object.entries(packages).flatMap(([owner, entry]) =>
    Object.keys(entry.optionalDependencies ?? {}).filter(
      (name) => !(`node_modules/${name}` in packages) && !(`${owner}/node_modules/${name}` in packages),
    ),
  )
  expect(missing).toEqual([])
})

test('the lock belongs to package.json', () => {
  const { packages } = JSON.parse(read('package-lock.json')) as Lock
  const manifest = JSON.parse(read('package.json')) as Record<string, unknown>
  const { dependencies, devDependencies, version, bin, engines } = manifest
  expect(packages['']).toMatchObject({ dependencies, devDependencies, version, bin, engines })
})
