/** The only importer of koffi, which calls native functions. Loaded when something native is wanted, and never before. */
export type Koffi = typeof import('koffi').default

/** koffi; rejects where it has no build for the platform. */
export async function loadKoffi(): Promise<Koffi> {
  const { default: koffi } = await import('koffi')
  return koffi
}
