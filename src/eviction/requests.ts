/**
 * Requests to evict that go to all threads of a file, because each thread can ask only its own
 * users.
 *
 * A request increments Word.EvictionRequests. A thread with evictable memory waits for that word
 * without blocking, evicts in its own turns of the event loop, and then writes the request's number
 * into its record (EvictionsDone). The records show the requesting thread whether all have
 * answered. It does not wait for a thread that died or has nothing evictable.
 */
import { MAX_PARTICIPANTS, ParticipantWord, Word } from "../control/control.ts";
import { slotWord } from "../control/participants.ts";
import { isThreadAlive } from "../threads/thread.ts";

/** How long a blocked thread sleeps before it checks that the others still live. */
const LOOK_MS = 20;
const POLL_MS = 1;

export class EvictionRequests {
  private readonly words: Int32Array<SharedArrayBuffer>;
  private readonly slot: number;
  private readonly evictAll: () => Promise<void>;
  private isWaiting = false;
  private hasLeft = false;
  /** Requests of this thread that `serve` has not seen yet. This thread evicts without them. */
  private ownRequests = 0;

  /** @param evictAll evicts all that this thread has marked, in its turns of the event loop */
  constructor(words: Int32Array<SharedArrayBuffer>, slot: number, evictAll: () => Promise<void>) {
    this.words = words;
    this.slot = slot;
    this.evictAll = evictAll;
  }

  private get record(): number {
    return slotWord(this.slot);
  }

  /** This thread has evictable memory and now carries out requests. */
  join(): void {
    if (this.isWaiting || this.hasLeft) return;
    this.isWaiting = true;
    const { words, record } = this;
    const seen = Atomics.load(words, Word.EvictionRequests);
    words[record + ParticipantWord.EvictionsDone] = seen;
    Atomics.store(words, record + ParticipantWord.HasEvictable, 1);
    Atomics.store(words, Word.Evictable, 1);
    void this.serve(seen);
  }

  private async serve(answered: number): Promise<void> {
    const { words } = this;
    while (!this.hasLeft) {
      const wait = Atomics.waitAsync(words, Word.EvictionRequests, answered);
      if (wait.async) await wait.value;
      if (this.hasLeft) return;
      const request = Atomics.load(words, Word.EvictionRequests);
      const isOwn = request - answered <= this.ownRequests;
      answered = request;
      this.ownRequests = 0;
      if (isOwn) {
        this.answer(request);
        continue;
      }
      // Stored before the users are asked, because the limit may be reached again meanwhile.
      Atomics.store(words, Word.EvictionPending, 0);
      await this.evictAll();
      if (!this.hasLeft) this.answer(request);
    }
  }

  /** This thread has carried out all requests up to `request`. */
  private answer(request: number): void {
    const at = this.record + ParticipantWord.EvictionsDone;
    if (this.words[at]! >= request) return;
    Atomics.store(this.words, at, request);
    Atomics.notify(this.words, at);
  }

  /** Asks the other threads to evict. Returns the request's number. */
  send(): number {
    if (this.isWaiting) this.ownRequests++;
    const request = Atomics.add(this.words, Word.EvictionRequests, 1) + 1;
    Atomics.notify(this.words, Word.EvictionRequests);
    return request;
  }

  /** As `send`, unless the last request of this kind has not reached any thread yet. */
  sendOnce(): void {
    if (!this.hasOthers()) return;
    if (Atomics.compareExchange(this.words, Word.EvictionPending, 0, 1) === 0) this.send();
  }

  private hasOthers(): boolean {
    const { words } = this;
    for (let slot = 0; slot < MAX_PARTICIPANTS; slot++)
      if (slot !== this.slot && words[slotWord(slot) + ParticipantWord.HasEvictable] !== 0)
        return true;
    return false;
  }

  /**
   * Asks the other threads and blocks until they have answered, or for `waitMs`. True if there was
   * one to ask. Precondition: this thread has evicted all it can; it answers requests meanwhile.
   */
  sendAndWait(waitMs: number): boolean {
    if (!this.hasOthers()) return false;
    const { words } = this;
    const until = performance.now() + waitMs;
    const request = this.send();
    for (let hasAsked = false; ; hasAsked = true) {
      if (this.isWaiting) this.answer(Atomics.load(words, Word.EvictionRequests));
      const at = this.nextUnanswered(request);
      const left = until - performance.now();
      if (at < 0 || left <= 0) return hasAsked;
      const done = Atomics.load(words, at + ParticipantWord.EvictionsDone);
      if (done < request)
        Atomics.wait(words, at + ParticipantWord.EvictionsDone, done, Math.min(left, LOOK_MS));
    }
  }

  /** Resolves when the other threads have answered all requests, or `isOver` returns true. */
  async answered(isOver: () => boolean): Promise<void> {
    const request = Atomics.load(this.words, Word.EvictionRequests);
    while (!isOver() && this.nextUnanswered(request) >= 0)
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }

  /** The record of another living thread that has not carried out `request` yet, or -1. */
  private nextUnanswered(request: number): number {
    const { words } = this;
    for (let slot = 0; slot < MAX_PARTICIPANTS; slot++) {
      const at = slotWord(slot);
      if (slot === this.slot || words[at + ParticipantWord.HasEvictable] === 0) continue;
      if (Atomics.load(words, at + ParticipantWord.EvictionsDone) >= request) continue;
      const thread = Atomics.load(words, at + ParticipantWord.Thread);
      if (thread !== 0 && isThreadAlive(thread)) return at;
    }
    return -1;
  }

  /** This thread no longer carries out requests. */
  leave(): void {
    this.hasLeft = true;
    if (!this.isWaiting) return;
    const { words, record } = this;
    Atomics.store(words, record + ParticipantWord.HasEvictable, 0);
    Atomics.notify(words, record + ParticipantWord.EvictionsDone);
    // Ends this thread's own wait. The others read the word and sleep again.
    Atomics.notify(words, Word.EvictionRequests);
  }
}
