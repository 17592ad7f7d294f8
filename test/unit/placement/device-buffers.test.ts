/** The bytes that an engine on a GPU takes for itself; the numbers expected are those that cuda/buffers.cu counted for the same shapes. */
import { expect, test } from 'vitest'
import { deviceBufferBytes } from '../../../src/placement/device-buffers.ts'
import type { DeviceShape } from '../../../src/placement/types.ts'

const AIR: DeviceShape = {
  hidden: 4096,
  heads: 96,
  kvHeads: 8,
  headDim: 128,
  rotary: 64,
  vocabulary: 151_552,
  layers: 46,
  ffn: 10_944,
  ffnExpert: 1408,
  experts: 128,
  expertsUsed: 8,
  deviceExperts: true,
  ubatch: 512,
  sequences: 32,
  outputs: 32,
  kvBlocks: 128,
  blocksPerSequence: 128,
  top: 64,
  digits: 1,
}

const LARGE = { ...AIR, hidden: 5120, layers: 92, ffn: 12_288, ffnExpert: 1536, experts: 160, ubatch: 2048, sequences: 1, outputs: 1 }

const TINY = { ...AIR, hidden: 256, heads: 4, kvHeads: 2, headDim: 64, rotary: 8, vocabulary: 300, ffn: 256, ffnExpert: 256, experts: 4 }

test.each([
  ['GLM-4.5-Air', AIR, 254_635_776],
  ['GLM-4.5-Air with its experts on the pool', { ...AIR, deviceExperts: false }, 222_766_336],
  ['GLM-4.7 with a long context', { ...LARGE, kvBlocks: 1024, blocksPerSequence: 1024 }, 1_020_164_864],
  [
    'a tiny model',
    { ...TINY, layers: 2, expertsUsed: 2, ubatch: 4, sequences: 2, outputs: 2, kvBlocks: 4, blocksPerSequence: 2 },
    1_156_096,
  ],
])('of %s', (_, shape, bytes) => {
  expect(deviceBufferBytes(shape)).toBe(bytes)
})
