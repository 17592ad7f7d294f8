/** Paths on the command line of a benchmark. */
import { resolve } from 'node:path'

/** An absolute path: npm runs scripts in the clone, and says in `INIT_CWD` where it was called, which is what the path is relative to. */
export const givenPath = (path: string): string => resolve(process.env['INIT_CWD'] ?? process.cwd(), path)
