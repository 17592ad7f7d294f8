/** The bundled model. */
import { fileURLToPath } from 'node:url'
import { packageFile } from './package-root.ts'

/** Path of the pocket model, a GGUF file of 12 MB that comes with the package: see models/README.md. */
export const POCKET_MODEL: string = fileURLToPath(packageFile('models/pocket.gguf'))
