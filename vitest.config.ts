import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    // a process per file: WebAssembly memories and worker threads of one test cannot starve another
    pool: 'forks',
    // tests start worker threads of their own, so more files at once than cores would only make them wait for each other
    maxWorkers: 2,
    testTimeout: 60_000,
    hookTimeout: 60_000,
    teardownTimeout: 10_000,
  },
})
