/** Finds added tokens in text: leftmost first, and of those that start at the same place the longest. */

interface Node {
  readonly next: Map<number, Node>
  id: number | undefined
}

/** A stretch of text, or one token found in it. */
export type Fragment = string | number

const emptyNode = (): Node => ({ next: new Map(), id: undefined })

/** A finder for the given tokens. Time is linear in the text times the longest token. */
export function createTokenFinder(tokens: Iterable<readonly [text: string, id: number]>): (text: string) => Fragment[] {
  const root = emptyNode()
  for (const [text, id] of tokens) {
    let node = root
    for (let i = 0; i < text.length; i++) {
      const unit = text.charCodeAt(i)
      let next = node.next.get(unit)
      if (next === undefined) node.next.set(unit, (next = emptyNode()))
      node = next
    }
    if (text !== '') node.id = id
  }

  return (text) => {
    const fragments: Fragment[] = []
    let start = 0
    for (let i = 0; i < text.length;) {
      let id: number | undefined
      let end = i
      let node = root.next.get(text.charCodeAt(i))
      for (let j = i + 1; node !== undefined; node = node.next.get(text.charCodeAt(j++))) {
        if (node.id === undefined) continue
        id = node.id
        end = j
      }
      if (id === undefined) {
        i++
        continue
      }
      if (i > start) fragments.push(text.slice(start, i))
      fragments.push(id)
      start = i = end
    }
    if (start < text.length) fragments.push(text.slice(start))
    return fragments
  }
}
