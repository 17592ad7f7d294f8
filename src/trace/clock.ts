/** The clock of profiles and traces: monotonic, and the same in every thread of the process, which `performance.now` is not. */

/** Nanoseconds since some fixed moment; exact to a nanosecond for the first 104 days after boot. */
export function nowNs(): number {
  return Number(process.hrtime.bigint())
}
