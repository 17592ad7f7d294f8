/** The part of `tandem doctor` that is about a model: whether it can be run, and with which pipeline. */
import { planModel } from '../engine/load-model.ts'
import { TandemError } from '../errors.ts'
import { openModelFile } from '../gguf/open.ts'
import { describeModel } from '../model/describe.ts'
import { checkMemory } from '../placement/memory.ts'
import type { MachineDevice, Plan } from '../placement/types.ts'
import { createTokenizer } from '../text/tokenizer.ts'
import { type Check, failed } from './doctor.ts'
import { type EngineFlags, loadOptions } from './engine-options.ts'
import type { Io } from './io.ts'
import { flagsFor } from './sweep-configurations.ts'
import { bytesText, countText, quoted } from './text.ts'

/** Without `--pipeline`. */
const DEFAULT_PIPELINE = 'cpu'

/** The file, its tensors, and its vocabulary. */
async function checkFile(path: string, io: Io): Promise<Check> {
  const file = await openModelFile(path, { signal: io.signal })
  const { name, architecture } = describeModel(file)
  const text = `${quoted(name)} (${architecture}), ${bytesText(file.bytes)}`
  try {
    createTokenizer(file.metadata)
    return { name: 'model', status: 'ok', text }
  } catch (error) {
    return { name: 'model', status: 'warn', text: `${text}: ${TandemError.from(error).message}`, advice: 'token ids work, text does not' }
  }
}

const sizes = ({ devices, limits }: Plan): string =>
  `${devices.map(({ id, bytes }) => `${bytesText(bytes)} on ${id}`).join(', ')}, for ${countText(limits.contextTokens)} tokens`

/** A plan that fits. Throws what keeps the pipeline from running here. */
async function tryPipeline(path: string, pipeline: string, flags: EngineFlags, io: Io): Promise<Plan> {
  const { plan, machine } = await planModel(path, loadOptions({ ...flags, pipeline }, io))
  checkMemory(plan, machine)
  return plan
}

/** Which pipeline would run, and which could. */
async function checkPipeline(path: string, flags: EngineFlags, devices: readonly MachineDevice[], io: Io): Promise<Check> {
  const name = 'pipeline'
  const ok = (text: string, advice?: string): Check => ({ name, status: 'ok', text, ...(advice === undefined ? {} : { advice }) })
  if (flags.pipeline !== undefined) return ok(`${flags.pipeline}: ${sizes(await tryPipeline(path, flags.pipeline, flags, io))}`)
  const [device] = devices
  const reasons: string[] = []
  for (const pipeline of device ? ['gpu', 'hybrid'] : []) {
    const own = await flagsFor(pipeline, flags)
    const fills = pipeline === 'hybrid' && flags.gpuLayers === undefined && flags.gpuMemory === undefined && flags.override === undefined
    const { freeBytes } = device!
    try {
      const plan = await tryPipeline(path, pipeline, fills ? { ...own, gpuMemory: freeBytes } : own, io)
      const options = `--pipeline ${pipeline}${fills ? ` --gpu-memory ${Math.floor(freeBytes / 2 ** 30)}GiB` : ''}`
      return ok(`${pipeline} fits: ${sizes(plan)}${reasons.join('')}`, `${options} uses it; without, ${DEFAULT_PIPELINE} runs`)
    } catch (error) {
      if (io.signal.aborted) throw error
      reasons.push(`; not ${pipeline}: ${TandemError.from(error).message}`)
    }
  }
  const plan = await tryPipeline(path, DEFAULT_PIPELINE, await flagsFor(DEFAULT_PIPELINE, flags), io)
  return ok(`${DEFAULT_PIPELINE}${device ? '' : ', as there is no GPU'}: ${sizes(plan)}${reasons.join('')}`)
}

/** The checks of a model, as they come. Throws `ERR_ABORTED`. */
export async function* checkModel(
  path: string,
  flags: EngineFlags,
  devices: readonly MachineDevice[],
  io: Io,
): AsyncGenerator<Check, void, undefined> {
  let name = 'model'
  try {
    yield await checkFile(path, io)
    name = 'pipeline'
    yield await checkPipeline(path, flags, devices, io)
  } catch (error) {
    if (io.signal.aborted) throw error
    yield failed(name, error)
  }
}
