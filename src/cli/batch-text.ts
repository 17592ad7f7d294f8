/** What a batch job tells a person. */
import type { BatchProgress, BatchSummary } from '../batch/progress.ts'
import { meter } from './progress-bar.ts'
import { countText } from './text.ts'

const BAR_WIDTH = 16

/** `3:07`, `1:02:03`. */
export function durationText(ms: number): string {
  const seconds = Math.round(ms / 1000)
  const two = (value: number): string => String(value % 60).padStart(2, '0')
  const [hours, minutes] = [Math.floor(seconds / 3600), Math.floor(seconds / 60)]
  return hours > 0 ? `${hours}:${two(minutes)}:${two(seconds)}` : `${minutes}:${two(seconds)}`
}

/** The bar of a running job. */
export function progressText(label: string, { done, total, failed, tokensPerSecond, etaMs }: BatchProgress): string {
  const eta = etaMs === undefined ? '' : `, ${durationText(etaMs)} left`
  return `${label} ${meter(done, total, BAR_WIDTH)} ${done} of ${total}, ${failed} failed, ${tokensPerSecond.toFixed(0)} tokens/s${eta}`
}

/** What a job did, on one line. */
export function summaryText(summary: BatchSummary): string {
  const { lines, earlier, succeeded, failed, tokens, promptTokens, reusedTokens, preemptions, seconds, tokensPerSecond } = summary
  const parts = [
    `${countText(lines)} lines: ${countText(succeeded)} answered, ${countText(failed)} failed`,
    earlier > 0 ? `${countText(earlier)} of them in earlier runs` : '',
    `${countText(tokens)} tokens in ${durationText(seconds * 1000)} (${tokensPerSecond.toFixed(1)}/s)`,
    `${countText(promptTokens)} prompt tokens (${countText(reusedTokens)} shared)`,
    preemptions > 0 ? `${countText(preemptions)} preemptions` : '',
  ]
  return parts.filter((part) => part !== '').join(', ')
}
