/**
 * Events on node:diagnostics_channel: `pgalloc:load`, `pgalloc:save` and `pgalloc:await`, each when
 * the work has ended.
 *
 * Loading that module takes 1.2 ms, which a start cannot spare. So the first end of a load or save
 * loads it, and awaits before that are kept until then. A message reaches its subscribers in a
 * later turn of the event loop. A program must hold the channels to which it subscribes: Bun 1.4
 * forgets the subscribers of a channel object that the collector takes.
 */
import type { Channel } from "node:diagnostics_channel";

export type EventName = "pgalloc:load" | "pgalloc:save" | "pgalloc:await";

/** Messages that are kept until the module is loaded; later ones are dropped. */
const PENDING_MAX = 1_000;

const NAMES: readonly EventName[] = ["pgalloc:load", "pgalloc:save", "pgalloc:await"];

let pending: { readonly name: EventName; readonly message: object }[] = [];
let channels: ReadonlyMap<EventName, Channel> | undefined;
/** True once the module is being loaded. */
let isOpening = false;

/** Sends a message to the subscribers of the channel, if there are any. */
export function publish(name: EventName, message: object): void {
  if (channels !== undefined) {
    const channel = channels.get(name)!;
    if (channel.hasSubscribers) channel.publish(message);
    return;
  }
  if (pending.length < PENDING_MAX) pending.push({ name, message });
  if (name === "pgalloc:await" || isOpening) return;
  isOpening = true;
  // Not in the turn in which the program gets its answer.
  setTimeout(() => void openChannels(), 0).unref();
}

/** Subscribes; also to kept messages, unless they were sent. Returns what ends the subscription. */
export async function subscribe(
  name: EventName,
  listen: (message: unknown) => void,
): Promise<() => void> {
  const { channel } = await import("node:diagnostics_channel");
  const channelOfName = channel(name);
  channelOfName.subscribe(listen);
  await openChannels();
  return () => {
    channelOfName.unsubscribe(listen);
  };
}

async function openChannels(): Promise<void> {
  const { channel } = await import("node:diagnostics_channel");
  channels ??= new Map(NAMES.map((name) => [name, channel(name)]));
  const kept = pending;
  pending = [];
  for (const { name, message } of kept) publish(name, message);
}
