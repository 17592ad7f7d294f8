import { describe, expect, test } from 'vitest'
import { depthAxis, valueAxis } from '../../../src/cli/chart-axis.ts'
import { type Series, sweepSvg } from '../../../src/cli/sweep-svg.ts'

const series = (label: string, speeds: readonly number[], spread = 0): Series => ({
  label,
  rows: speeds.map((speed, index) => ({
    pp: 128,
    tg: 32,
    n_kv: 128 * index,
    t_pp: 1,
    speed_pp: speed,
    t_tg: 1,
    speed_tg: speed / 10,
    pp_range: [speed - spread, speed + spread] as const,
    tg_range: [(speed - spread) / 10, (speed + spread) / 10] as const,
  })),
})
const count = (text: string, part: RegExp): number => text.match(part)?.length ?? 0

describe('axes begin at zero and have round ticks', () => {
  test.each([
    [4437, 5000, 1000],
    [5203, 6000, 1000],
    [0.37, 0.4, 0.1],
    [6, 6, 1],
    [0, 1, 0.2],
    [73.5, 80, 20],
  ])('speeds up to %d', (max, end, step) => {
    const axis = valueAxis(max)
    expect(axis.end).toBe(end)
    expect(axis.ticks.slice(0, 2)).toEqual([0, step])
    expect(axis.ticks.at(-1)).toBe(end)
  })

  test.each([
    ['powers of two', [0, 512, 1024, 1536], [0, 256, 512, 768, 1024, 1280, 1536]],
    ['tens where depths are not', [0, 100, 200, 300], [0, 50, 100, 150, 200, 250, 300]],
    ['up to the deepest', [0, 512, 3584], [0, 1024, 2048, 3072]],
    ['a single row', [0], [0, 128, 256, 384, 512]],
  ])('depths: %s', (_, depths, ticks) => {
    expect(depthAxis(depths, 512).ticks).toEqual(ticks)
  })
})

test('one line per configuration in each panel, a marker and a whisker per point, and a dark style', () => {
  const svg = sweepSvg({ title: 'm', notes: ['machine'], series: [series('cpu', [300, 200], 5), series('hybrid', [900, 800], 5)] })
  // two in the legend
  expect(count(svg, /class="line /g)).toBe(2 + 4)
  expect(count(svg, /<title>(cpu|hybrid), N_KV/g)).toBe(8)
  expect(count(svg, /class="whisker /g)).toBe(4)
  expect(svg).toContain('<title>hybrid, N_KV 128: 80 tokens/s (79.5 .. 80.5)</title>')
  expect(svg).toContain('@media (prefers-color-scheme: dark)')
  expect(svg).toMatch(/Prefill, tokens\/s[^]*N_KV[^]*Decode, tokens\/s[^]*N_KV/)
})

test('no whiskers without ranges', () => {
  expect(sweepSvg({ title: 'm', notes: [], series: [series('cpu', [300, 200])] })).not.toContain('class="whisker ')
})

test('names come from files: nothing in them is markup', () => {
  const svg = sweepSvg({ title: '<script>&"\u0000', notes: ['</text>'], series: [series('<b>', [1])] })
  for (const part of ['<script', '<b>', '\u0000']) expect(svg).not.toContain(part)
  expect(svg).toContain('&lt;script&gt;&amp;&quot;')
  expect(count(svg, /<text/g)).toBe(count(svg, /<\/text>/g))
})

test('a legend with many names takes more lines, above the panels', () => {
  const many = Array.from({ length: 9 }, (_, index) => series(`a configuration with a name, ${index}`, [10 + index]))
  const svg = sweepSvg({ title: 'm', notes: [], series: many })
  const yOf = (pattern: RegExp): number[] => [...svg.matchAll(pattern)].map((match) => Number(match[1]))
  const keys = yOf(/class="legend" x="[\d.]+" y="([\d.]+)"/g)
  expect(new Set(keys).size).toBeGreaterThan(1)
  expect(Math.max(...keys)).toBeLessThan(Math.min(...yOf(/class="panel" x="\d+" y="([\d.]+)"/g)) - 14)
  const right = [...svg.matchAll(/class="legend" x="([\d.]+)"/g)].map((match) => Number(match[1]) + 31 * 7)
  expect(Math.max(...right)).toBeLessThan(960)
  // the seventh line has the first one's colour, and dashes
  expect(svg).toMatch(/class="line c0" stroke-dasharray=/)
})
