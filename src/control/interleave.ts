/**
 * A seam between two steps of a protocol in shared memory, at which a test can stop one thread
 * while another runs. Where and why: docs/memory-order.md. Without a hook a point is one comparison
 * of a variable that never changes, which the compiler removes.
 */

/** The points, each named for what has been done when it is reached. */
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

/** For tests: `hook` runs whenever this thread comes to a point. `undefined` removes it. */
export function setInterleavingHook(next: ((point: Point) => void) | undefined): void {
  hook = next;
}

/** This thread has come to a point. */
export const reach = (point: Point): void => {
  if (hook !== undefined) hook(point);
};
