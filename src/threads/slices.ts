/**
 * Long work of one thread in slices, between which its event loop goes round: a generator that
 * yields where the work may pause.
 */
export type Slices<T> = Generator<undefined, T, undefined>;

/** A slice ends at the first pause after that time. */
const SLICE_MS = 4;

export async function inSlices<T>(work: Slices<T>): Promise<T> {
  for (let beganMs = performance.now(); ; ) {
    const { done, value } = work.next();
    if (done === true) return value;
    if (performance.now() - beganMs < SLICE_MS) continue;
    await nextTurn();
    beganMs = performance.now();
  }
}

/** Does the work without pauses. */
export function atOnce<T>(work: Slices<T>): T {
  for (;;) {
    const { done, value } = work.next();
    if (done === true) return value;
  }
}

/** Lets the event loop go round once. */
export function nextTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
