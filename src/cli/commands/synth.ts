/** `tandem synth`: a model with random weights in the shape of a real one. */
import { existsSync } from 'node:fs'
import { type Command, Option } from 'commander'
import { FORMATS, type FormatName } from '../../abi/formats.ts'
import { TandemError } from '../../errors.ts'
import { type PresetName, PRESETS } from '../../synth/presets.ts'
import { synthesize } from '../../synth/synthesize.ts'
import type { Io } from '../io.ts'
import { bytesText, countText } from '../text.ts'
import { given, whole } from '../values.ts'

interface Flags {
  readonly arch: 'glm4moe'
  readonly preset: PresetName
  readonly layers?: number
  readonly expertFormat?: FormatName
  readonly format?: FormatName
  readonly seed?: number
  readonly output: string
  readonly force?: true
}

export function define(command: Command, io: Io): void {
  const formats = Object.keys(FORMATS)
  command
    .addOption(new Option('--arch <name>', 'architecture').choices(['glm4moe']).default('glm4moe'))
    .addOption(new Option('--preset <name>', 'shape').choices(Object.keys(PRESETS)).makeOptionMandatory())
    .option('--layers <n>', "layers, dense ones included (default: the preset's)", whole(1))
    .addOption(new Option('--expert-format <format>', 'format of the routed experts (default: Q4_0)').choices(formats))
    .addOption(new Option('--format <format>', 'format of the other matrices (default: Q8_0)').choices(formats))
    .option('--seed <n>', 'the same options give the same bytes (default: 0)', whole(0))
    .requiredOption('-o, --output <path>', 'the file to write; it appears under its name when it is complete')
    .option('--force', 'replace an existing file')
    .addHelpText('after', '\nExample:\n  $ tandem synth --preset mid --expert-format Q4_0 --format Q8_0 --seed 1 -o mid.gguf\n')
    .action((flags: Flags) => run(flags, io))
}

async function run({ arch, output, force, ...shape }: Flags, io: Io): Promise<void> {
  if (!force && existsSync(output)) throw new TandemError('ERR_FILE_ACCESS', `${output}: the file exists; --force replaces it`)
  const { preset, layers, expertFormat, format, seed } = shape
  const { bytes, tensors, seconds, fallbacks } = await io.during('writing', (bar) =>
    synthesize({
      architecture: arch,
      preset,
      output,
      ...given({ layers, expertFormat, format, seed }),
      signal: io.signal,
      onProgress: ({ done, total, unit }) => bar.update(done, total, unit),
    }),
  )
  for (const { from, to, columns, tensors: count } of fallbacks) {
    io.talk(`note: ${count} matrices with rows of ${countText(columns)} do not fit ${from}, which has longer blocks; they are ${to}`)
  }
  io.talk(`${output}: ${bytesText(bytes)}, ${countText(tensors)} tensors, ${seconds.toFixed(1)} s`)
}
