/** `tandem repack`: a copy of a model's weights that is mapped instead of loaded; with `--verify`, whether one is as it was written. */
import { existsSync } from 'node:fs'
import type { Command } from 'commander'
import { TandemError } from '../../errors.ts'
import { openModelFile } from '../../gguf/open.ts'
import { describeModel } from '../../model/describe.ts'
import type { Model } from '../../model/types.ts'
import { sidecarPath } from '../../sidecar/open.ts'
import { verifySidecar } from '../../sidecar/verify.ts'
import { writeSidecar } from '../../sidecar/write.ts'
import { addModelArgument, modelPath } from '../engine-options.ts'
import type { Io } from '../io.ts'
import type { ProgressBar } from '../progress-bar.ts'
import { bytesText, countText } from '../text.ts'

interface Flags {
  readonly output?: string
  readonly force?: true
  readonly verify?: true
}

export function define(command: Command, io: Io): void {
  addModelArgument(command)
    .option('-o, --output <path>', 'the file to write (default: beside the model, with .tandem behind its name)')
    .option('--force', 'replace an existing file')
    .option('--verify', 'write nothing: read the model and the repacked file, and compare both with their checksums')
    .addHelpText('after', '\nExample:\n  $ tandem repack model.gguf && tandem generate model.gguf --sidecar auto --prompt Hello\n')
    .action((model: string | undefined, flags: Flags) => run(model, flags, io))
}

async function run(path: string | undefined, { output = 'auto', force, verify }: Flags, io: Io): Promise<void> {
  const model = describeModel(await openModelFile(modelPath(path), { signal: io.signal }))
  return verify ? compare(model, output, io) : write(model, output, force === true, io)
}

async function write(model: Model, output: string, isForced: boolean, io: Io): Promise<void> {
  const target = sidecarPath(model.file, output)
  if (!isForced && existsSync(target)) throw new TandemError('ERR_FILE_ACCESS', `${target}: the file exists; --force replaces it`)
  const { bytes, matrices, seconds } = await io.during('repacking', (bar) => writeSidecar(model, output, watched(bar, io)))
  io.talk(`${target}: ${bytesText(bytes)}, ${countText(matrices)} matrices, ${seconds.toFixed(1)} s`)
}

async function compare(model: Model, output: string, io: Io): Promise<void> {
  const { path, bytes } = await io.during('verifying', (bar) => verifySidecar(model, output, watched(bar, io)))
  io.talk(`${path}: as it was written, and the model too; ${bytesText(bytes)} read`)
}

const watched = (bar: ProgressBar, { signal }: Io) => ({
  signal,
  onProgress: (done: number, total: number): void => bar.update(done, total, 'bytes'),
})
