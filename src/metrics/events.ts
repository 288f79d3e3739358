/**
 * Events on node:diagnostics_channel: `pgalloc:load`, `pgalloc:save` and `pgalloc:await`, each when
 * the work has ended.
 *
 * Loading that module takes 1.2 ms, which a start cannot spare. So the first end of a load or save
 * loads it, and awaits before that are kept until then. A message reaches its subscribers in a later
 * turn of the event loop. A program must hold the channels to which it subscribes: Bun 1.4 forgets
 * the subscribers of a channel object that the collector takes.
 */
import type { Channel } from "node:diagnostics_channel";

export type EventName = "pgalloc:load" | "pgalloc:save" | "pgalloc:await";

/** Messages that are kept until the module is loaded; later ones are dropped. */
const PENDING_MAX = 1_000;

let pending: { readonly name: EventName; readonly message: object }[] = [];
let channels: ReadonlyMap<EventName, Channel> | undefined;
let loading: Promise<void> | undefined;

/** Sends a message to the subscribers of the channel, if there are any. */
export function publish(name: EventName, message: object): void {
  if (channels !== undefined) {
    const channel = channels.get(name)!;
    if (channel.hasSubscribers) channel.publish(message);
    return;
  }
  if (pending.length < PENDING_MAX) pending.push({ name, message });
  if (name !== "pgalloc:await") loading ??= loadChannels();
}

async function loadChannels(): Promise<void> {
  // Not in the turn in which the program gets its answer.
  await new Promise((resolve) => setTimeout(resolve, 0).unref());
  const { channel } = await import("node:diagnostics_channel");
  const names: readonly EventName[] = ["pgalloc:load", "pgalloc:save", "pgalloc:await"];
  channels = new Map(names.map((name) => [name, channel(name)]));
  const kept = pending;
  pending = [];
  for (const { name, message } of kept) publish(name, message);
}
