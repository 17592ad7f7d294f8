// Writes docs/errors.md from the table in src/errors.ts: `npm run errors-page`. A test compares the two.
import { readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { ERROR_CODES, type ErrorCode } from '../src/errors.ts'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')

interface Group {
  readonly title: string
  readonly codes: ErrorCode[]
}

/** The table's groups are its comments: `// model files` starts one. */
function groups(source: string): Group[] {
  const table = /export const ERROR_CODES = \{([\s\S]*?)\n\} as const/.exec(source)?.[1] ?? ''
  const found: Group[] = []
  for (const line of table.split('\n')) {
    const title = /^\s*\/\/ (.+)$/.exec(line)?.[1]
    const code = /^\s*(ERR_\w+):/.exec(line)?.[1]
    if (title) found.push({ title, codes: [] })
    if (code) found.at(-1)?.codes.push(code as ErrorCode)
  }
  return found
}

/** The whole page as Markdown. */
export function errorsPage(): string {
  const sections = groups(readFileSync(join(root, 'src/errors.ts'), 'utf8')).map(({ title, codes }) => {
    const rows = codes.map((code) => `| \`${code}\` | ${ERROR_CODES[code]} |`)
    return `## ${title.charAt(0).toUpperCase()}${title.slice(1)}\n\n| code | meaning |\n| --- | --- |\n${rows.join('\n')}\n`
  })
  return `<!-- Generated from src/errors.ts by scripts/errors-page.ts (npm run errors-page): change the table there. -->

# Errors

Everything that Tandem throws on purpose is a \`TandemError\` with a stable \`code\`; the message says what happened, where, and what to do about it,
and \`cause\` carries the error underneath, if there was one. Programs should look at the code alone:

\`\`\`js
import { TandemError } from 'tandem-moe'

try {
  await answer(prompt)
} catch (error) {
  if (TandemError.is(error) && error.code === 'ERR_CONTEXT_OVERFLOW') await answer(shortened(prompt))
  else throw error
}
\`\`\`

Use \`TandemError.is\` rather than \`instanceof\`: it also knows errors of another copy of the package. Between threads errors travel as records
(\`toRecord\`, \`TandemError.fromRecord\`), because \`structuredClone\` drops the code. On the command line an error is one line on stderr,
\`error CODE: message\`, and the exit code 1. \`ERR_SETUP\`, from the scripts of a clone, is the one code outside the library: the packages or Node could
not be installed.

${sections.join('\n')}`
}

if (process.argv[1] === fileURLToPath(import.meta.url)) writeFileSync(join(root, 'docs/errors.md'), errorsPage())
