/** An engine in a process of its own, asked one thing at a time. */
import { type ChildProcess, fork } from 'node:child_process'
import type { Reply, Request } from './protocol.ts'

/** See the file's header. */
export class Child {
  readonly name: string
  readonly #process: ChildProcess

  constructor(name: string, file: URL, env: Readonly<Record<string, string>>) {
    this.name = name
    this.#process = fork(file, { env: { ...process.env, ...env }, stdio: ['ignore', 'ignore', 'inherit', 'ipc'] })
  }

  /** Throws when the engine cannot do it, or its process ends. */
  ask(request: Request): Promise<Reply> {
    return new Promise((resolve, reject) => {
      const settle = (): void => {
        this.#process.off('message', onMessage)
        this.#process.off('exit', onExit)
      }
      const onMessage = (reply: Reply): void => {
        settle()
        if (reply.error === undefined) resolve(reply)
        else reject(new Error(`${this.name}: ${reply.error}`))
      }
      const onExit = (code: number | null): void => {
        settle()
        reject(new Error(`${this.name}: the process ended with ${code}`))
      }
      this.#process.on('message', onMessage)
      this.#process.on('exit', onExit)
      this.#process.send(request)
    })
  }

  close(): void {
    if (this.#process.connected) this.#process.disconnect()
  }
}
