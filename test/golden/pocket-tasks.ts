/** The pocket model's held-out tasks, and how an engine scores on them: exact match, greedy. */
import { readFileSync } from 'node:fs'
import type { Engine } from '../../src/index.ts'

/** A line of `models/pocket/tasks.jsonl`. */
export interface Task {
  readonly id: string
  readonly family: string
  readonly prompt: string
  readonly answer: string
}

/** Right answers and tasks, in all and by family. */
export interface Score {
  readonly accuracy: number
  readonly families: Readonly<Record<string, number>>
  readonly wrong: readonly { readonly id: string; readonly prompt: string; readonly answer: string; readonly given: string }[]
}

/** Every held-out task. */
export function readTasks(): Task[] {
  const lines = readFileSync(new URL('../../models/pocket/tasks.jsonl', import.meta.url), 'utf8')
    .trim()
    .split('\n')
  return lines.map((line) => JSON.parse(line) as Task)
}

/** Answers all tasks, `concurrency` of them at a time. */
export async function scoreTasks(engine: Engine, tasks: readonly Task[], concurrency: number): Promise<Score> {
  const given: string[] = []
  const queue = tasks.entries()
  const worker = async (): Promise<void> => {
    for (const [index, { prompt }] of queue) given[index] = (await engine.generate(prompt, { maxTokens: 200 })).text
  }
  await Promise.all(Array.from({ length: concurrency }, worker))
  const right = (family?: string): number => {
    const mine = tasks.map((task, index) => ({ task, index })).filter(({ task }) => family === undefined || task.family === family)
    return mine.filter(({ task, index }) => given[index] === task.answer).length / mine.length
  }
  const families = [...new Set(tasks.map(({ family }) => family))].sort()
  return {
    accuracy: right(),
    families: Object.fromEntries(families.map((family) => [family, right(family)])),
    wrong: tasks.flatMap(({ id, prompt, answer }, index) =>
      given[index] === answer ? [] : [{ id, prompt, answer, given: given[index] ?? '' }],
    ),
  }
}
