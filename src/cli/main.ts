#!/usr/bin/env node
/** The `tandem` command. Signals first, everything else after: Ctrl-C ends cleanly also while the command is still being imported. */
import { Interruption } from './interruption.ts'

const interruption = new Interruption()
const { main } = await import('./run.ts')
await main(process.argv.slice(2), interruption)
