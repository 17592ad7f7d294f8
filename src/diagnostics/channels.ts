/** Channels of `node:diagnostics_channel` with typed messages; docs/diagnostics.md lists them. Names and messages are a contract. */
import { type Channel, channel, tracingChannel } from 'node:diagnostics_channel'

/** A channel. Whoever publishes asks for subscribers first, so that without them no message is made. */
export interface MessageChannel<Message> {
  readonly hasSubscribers: boolean
  publish(message: Message): void
}

/** The five channels of something that takes time: see `TracingChannel` of Node. */
export interface OperationChannels<Message extends object> {
  readonly hasSubscribers: boolean
  readonly start: MessageChannel<Message>
  readonly end: MessageChannel<Message>
  readonly asyncStart: MessageChannel<Message>
  readonly asyncEnd: MessageChannel<Message>
  readonly error: MessageChannel<Message>
  /** Tells of a promise from its beginning to its end. */
  tracePromise<Result>(work: () => Promise<Result>, message: Message): Promise<Result>
}

/** What channels may be called. */
type Name = `tandem:${string}`

/** The channel of a name. */
export function messageChannel<Message>(name: Name): MessageChannel<Message> {
  return channel(name) satisfies Channel as MessageChannel<Message>
}

/** The channels of an operation: `tracing:NAME:start` and so on. */
export function operationChannels<Message extends object>(name: Name): OperationChannels<Message> {
  return tracingChannel<Message>(name)
}
