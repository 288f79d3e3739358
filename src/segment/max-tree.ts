/**
 * MaxTree: one number for each leaf, and above the leaves a tree of maxima with 8 children for each
 * node. It finds the first and the last leaf whose number is at least some value in log8(leaves)
 * steps.
 *
 * All nodes are in one Int32Array, root first and leaves last, each level in whole groups of
 * siblings (layout.ts). Threads may share it. Invariant: a node is the largest of its children.
 */
import { FANOUT, FANOUT_SHIFT } from "./layout.ts";

export class MaxTree {
  private readonly nodes: Int32Array;
  private readonly bases: Int32Array;
  /** The lowest level whose first node covers all leaves of `nodes`. */
  private readonly top: number;

  constructor(nodes: Int32Array, bases: readonly number[]) {
    this.nodes = nodes;
    this.bases = new Int32Array(bases);
    let top = 0;
    for (let leaves = nodes.length - bases[0]!; leaves > 1; leaves = Math.ceil(leaves / FANOUT))
      top++;
    this.top = Math.min(top, bases.length - 1);
  }

  at(leaf: number): number {
    return this.nodes[this.bases[0]! + leaf]!;
  }

  /** The first leaf with at least `value`, or -1. */
  first(value: number): number {
    const { nodes, bases } = this;
    let level = this.top;
    if (nodes[bases[level]!]! < value) return -1;
    let node = 0;
    while (--level >= 0) {
      const children = largeChildren(nodes, (bases[level]! + (node << FANOUT_SHIFT)) | 0, value);
      node = (node << FANOUT_SHIFT) | (31 - Math.clz32(children & -children));
    }
    return node;
  }

  /** The last leaf with at least `value`, or -1. */
  last(value: number): number {
    const { nodes, bases } = this;
    let level = this.top;
    if (nodes[bases[level]!]! < value) return -1;
    let node = 0;
    while (--level >= 0) {
      const children = largeChildren(nodes, (bases[level]! + (node << FANOUT_SHIFT)) | 0, value);
      node = (node << FANOUT_SHIFT) | (31 - Math.clz32(children));
    }
    return node;
  }

  /** Raises the leaf to `value` if it is less. */
  raise(leaf: number, value: number): void {
    const { nodes, bases } = this;
    let node = leaf;
    for (let level = 0; level < bases.length; level++) {
      const at = bases[level]! + node;
      if (nodes[at]! >= value) return;
      nodes[at] = value;
      node >>>= FANOUT_SHIFT;
    }
  }

  /** Sets the leaf to `value`, which is not above its present number. */
  lower(leaf: number, value: number): void {
    const { nodes, bases } = this;
    let node = leaf;
    let at = bases[0]! + leaf;
    let maximum = value;
    for (let level = 1; ; level++) {
      const before = nodes[at]!;
      if (before === maximum) return;
      nodes[at] = maximum;
      if (level === bases.length) return;
      node >>>= FANOUT_SHIFT;
      at = bases[level]! + node;
      // A child changes the node only if it was the node's maximum.
      if (nodes[at]! > before) return;
      const first = bases[level - 1]! + (node << FANOUT_SHIFT);
      // Written out for a FANOUT of 8, without branches: the processor cannot predict which child
      // is larger.
      const left = Math.max(
        Math.max(nodes[first]!, nodes[first + 1]!),
        Math.max(nodes[first + 2]!, nodes[first + 3]!),
      );
      const right = Math.max(
        Math.max(nodes[first + 4]!, nodes[first + 5]!),
        Math.max(nodes[first + 6]!, nodes[first + 7]!),
      );
      maximum = Math.max(left, right);
    }
  }
}

/**
 * One bit for each of the 8 siblings from `first` on: set if the sibling is at least `value`.
 * Without branches, because the processor cannot predict them.
 */
const largeChildren = (nodes: Int32Array, first: number, value: number): number => {
  // Neither number is negative, so the difference is negative exactly if the node is below the
  // value.
  const below =
    ((nodes[first]! - value) >>> 31) |
    (((nodes[first + 1]! - value) >>> 31) << 1) |
    (((nodes[first + 2]! - value) >>> 31) << 2) |
    (((nodes[first + 3]! - value) >>> 31) << 3) |
    (((nodes[first + 4]! - value) >>> 31) << 4) |
    (((nodes[first + 5]! - value) >>> 31) << 5) |
    (((nodes[first + 6]! - value) >>> 31) << 6) |
    (((nodes[first + 7]! - value) >>> 31) << 7);
  return below ^ 0xff;
};
