/**
 * Points between two steps of a protocol in shared memory, at which a test can stop one thread
 * while another runs. docs/memory-order.md says where and why. Without a hook, a point is one
 * comparison of a variable that never changes, which the JIT removes.
 */

/** Each point is named for the step before it. */
export type Point =
  | "lock: taken"
  | "lock: marked contended"
  | "attach: looked at Destroyed"
  | "attach: took a slot"
  | "destroy: marked"
  | "leave: found no slot in use"
  | "grow: chunks mapped"
  | "releaser: found no waste"
  | "release: began"
  | "release: decommitted"
  | "release: sub-released"
  | "load: claimed"
  | "drop: claimed"
  | "failed: taken"
  | "counts: looked at the bits"
  | "recover: took the slot"
  | "load: bytes in place"
  | "load: bits set"
  | "load: none pending"
  | "wait: looked at the bits"
  | "stop: running again"
  | "stop: all are still"
  | "demand: found nothing wanted";

let hook: ((point: Point) => void) | undefined;

/** For tests: `hook` runs whenever this thread reaches a point. `undefined` removes it. */
export function setInterleavingHook(next: ((point: Point) => void) | undefined): void {
  hook = next;
}

/** Called when this thread reaches a point. */
export const reach = (point: Point): void => {
  if (hook !== undefined) hook(point);
};
