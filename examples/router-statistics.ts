// How evenly the experts of every layer are used: node examples/router-statistics.ts
import { loadModel, POCKET_MODEL } from '../src/index.ts'
import pipeline, { expertUse } from '../pipelines/router-statistics.ts'

await using engine = await loadModel(POCKET_MODEL, { pipeline, contextTokens: 512 })
for (const prompt of ['Tell me a story about a fox.', 'What is 27 + 48?', 'Sort 31 7 90 12.']) await engine.generate(prompt)

const use = expertUse(await engine.userStage<Int32Array>('experts').collect())
console.log('layer  max/mean  unused  share of each expert')
for (const { layer, counts, imbalance, unused } of use) {
  const most = Math.max(...counts)
  const bars = [...counts].map((count) => '▁▂▃▄▅▆▇█'[Math.round((count / most) * 7)]).join('')
  console.log([String(layer).padStart(5), imbalance.toFixed(2).padStart(9), String(unused).padStart(7), ` ${bars}`].join(' '))
}
