// Prints `N passed, N failed, N skipped` for the last `npm test`, from the record that vitest wrote: the line that CI reads.
import { readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const path = join(dirname(fileURLToPath(import.meta.url)), '..', '.cache', 'test-results.json')
try {
  const results = JSON.parse(readFileSync(path, 'utf8'))
  const skipped = results.numPendingTests + results.numTodoTests
  // a file that cannot be loaded has no tests to count: it counts as one that failed
  const broken = results.testResults.filter((file) => file.status === 'failed' && file.assertionResults.length === 0).length
  const failed = results.numFailedTests + broken
  process.stdout.write(`${results.numPassedTests} passed, ${failed} failed, ${skipped} skipped\n`)
  process.exitCode = failed > 0 || results.numPassedTests === 0 ? 1 : 0
} catch (error) {
  process.stderr.write(`scripts/count-tests.mjs: no test results: ${error.message}\n`)
  process.stdout.write('0 passed, 1 failed, 0 skipped\n')
  process.exitCode = 1
}
