/** The barrier between the parts of a stage. One run is many rounds inside the workers, so the hand-off to them does not count. */
import { Crew } from './support/crew.ts'
import { type Case, isWanted, type Settings, type Suite } from './support/suite.ts'

const ROUNDS = 1000

async function* cases(settings: Settings): AsyncGenerator<Case> {
  for (const { name, spins } of [
    { name: `${settings.threads} workers, spinning`, spins: 20_000 },
    { name: `${settings.threads} workers, sleeping`, spins: 0 },
  ]) {
    if (!isWanted(settings, 'fan-in', name)) continue
    const crew = await Crew.start(settings.threads, { kind: 'barriers', rounds: ROUNDS }, spins)
    yield { name, work: [{ amount: ROUNDS, unit: 'us' }], check: () => crew.round(), run: () => crew.round() }
    await crew.stop()
  }
}

export const suite: Suite = { name: 'fan-in', about: 'one barrier', bothModes: false, cases }
