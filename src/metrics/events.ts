/**
 * Events on node:diagnostics_channel: `pgalloc:load`, `pgalloc:save` and `pgalloc:await`, each when
 * the work has ended.
 *
 * Loading that module takes 1.2 ms, which would delay a start. So the first end of a load or save
 * loads it; messages of earlier awaits are kept until then. A message reaches its subscribers in a
 * later turn of the event loop. A program must keep the channels to which it subscribes
 * reachable (docs/metrics.md): Bun 1.4 forgets the subscribers of a channel that was collected.
 */
import type { Channel } from "node:diagnostics_channel";

export type EventName = "pgalloc:load" | "pgalloc:save" | "pgalloc:await";

/** The most messages that are kept before the module is loaded. Later ones are dropped. */
const PENDING_MAX = 1_000;

const NAMES: readonly EventName[] = ["pgalloc:load", "pgalloc:save", "pgalloc:await"];

let pending: { readonly name: EventName; readonly message: object }[] = [];
let channels: ReadonlyMap<EventName, Channel> | undefined;
/** True once the module is being loaded. */
let isOpening = false;

/** Sends a message to the subscribers of the channel. */
export function publish(name: EventName, message: object): void {
  if (channels !== undefined) {
    const channel = channels.get(name)!;
    if (channel.hasSubscribers) channel.publish(message);
    return;
  }
  if (pending.length < PENDING_MAX) pending.push({ name, message });
  if (name === "pgalloc:await" || isOpening) return;
  isOpening = true;
  // In a later turn of the event loop than the one in which the program gets its answer.
  setTimeout(() => void openChannels(), 0).unref();
}

/**
 * Subscribes, also to kept messages that are not sent yet. Returns a function that unsubscribes.
 */
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
