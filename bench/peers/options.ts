/** The command line. */
export interface Options {
  readonly model: string
  readonly rounds: number
  readonly threads: number
  readonly prefill: number
  readonly decode: number
}
